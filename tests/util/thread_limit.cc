#include "tests/util/thread_limit.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <limits>

namespace {

constexpr int kNoLimit = std::numeric_limits<int>::max();
std::atomic<int> threads_left = kNoLimit;

}  // namespace

// What std::thread calls: a program's own definition goes before that of the C library.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left != kNoLimit && threads_left-- <= 0) return EAGAIN;
  return create(thread, attributes, start, argument);
}

namespace dimmer {

ThreadLimit::ThreadLimit(int more) { threads_left = more; }
ThreadLimit::~ThreadLimit() { threads_left = kNoLimit; }

}  // namespace dimmer
