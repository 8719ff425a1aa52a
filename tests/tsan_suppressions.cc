// Built into every test under ThreadSanitizer. The distribution's Abseil is not instrumented: TSan
// does not see the atomic reference count of absl::Status, and takes the last owner's delete for a
// race with another owner's earlier read. Nothing else is suppressed.
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() { return "race:*::Status::Unref*\n"; }
