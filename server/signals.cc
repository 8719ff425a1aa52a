#include "server/signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

namespace dimmer {
namespace {

sigset_t Stopping() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

Signals::Signals() {
  const sigset_t set = Stopping();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a peer that leaves is an error of its connection alone
  std::thread([this] { Listen(); }).detach();  // lives as long as the process
}

void Signals::Listen() {
  const sigset_t set = Stopping();
  bool asked = false;
  while (true) {
    int number = 0;
    if (sigwait(&set, &number) != 0) continue;
    if (asked || !serving_) _exit(128 + number);
    asked = true;
    first_.set_value(number);
  }
}

}  // namespace dimmer
