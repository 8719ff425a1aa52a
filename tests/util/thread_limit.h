// Lets a test run out of threads: replaces pthread_create in its program.
//
// Thread safety: one ThreadLimit at a time.
#ifndef DIMMER_TESTS_UTIL_THREAD_LIMIT_H_
#define DIMMER_TESTS_UTIL_THREAD_LIMIT_H_

namespace dimmer {

class ThreadLimit {
 public:
  // While it lives, `more` threads can be started; for others the system has no room.
  explicit ThreadLimit(int more);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_UTIL_THREAD_LIMIT_H_
