// SIGTERM and SIGINT as a value to wait for.
//
// Thread safety: construct before any other thread starts (threads inherit the blocked signals);
// one instance per process.
#ifndef DIMMER_SERVER_SIGNALS_H_
#define DIMMER_SERVER_SIGNALS_H_

#include <atomic>
#include <future>

namespace dimmer {

class Signals {
 public:
  Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // From here on the first signal asks for a drain; before, it ends the process at once.
  void Serving() { serving_ = true; }
  // Returns the first signal's number. A second one ends the process at once.
  int Wait() { return first_.get_future().get(); }

 private:
  [[noreturn]] void Listen();

  std::atomic<bool> serving_ = false;
  std::promise<int> first_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_SIGNALS_H_
