#include "server/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {
namespace {

// Each holds one connection, so a few that say nothing must not keep a liveness probe waiting.
constexpr int kThreads = 16;
constexpr int kSeconds = 1;  // that a connection may say nothing, or take nothing

}  // namespace

class HttpServer::Impl {
 public:
  httplib::Server server;
  std::thread thread;
  std::atomic<bool> ended = false;
};

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {
  httplib::Server& server = impl_->server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  // Not httplib's default, SO_REUSEPORT: two servers would share the port without a word.
  server.set_socket_options([](int socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.set_read_timeout(kSeconds);
  server.set_write_timeout(kSeconds);
  server.set_keep_alive_timeout(1);
  server.set_payload_max_length(4096);
}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Route(const std::string& path, std::function<HttpAnswer()> handler) {
  impl_->server.Get(
      path, [handler = std::move(handler)](const httplib::Request&, httplib::Response& response) {
        const HttpAnswer answer = handler();
        response.status = answer.status;
        response.set_content(answer.body, answer.content_type);
      });
}

absl::StatusOr<int> HttpServer::Start(const std::string& address, int port,
                                      const std::string& flag) {
  httplib::Server& server = impl_->server;
  if (port == 0) {
    port = server.bind_to_any_port(address);
    if (port < 0) return PortError(address, 0, flag);
  } else if (!server.bind_to_port(address, port)) {
    return PortError(address, port, flag);
  }
  impl_->thread = std::thread([this] {
    impl_->server.listen_after_bind();
    impl_->ended = true;
  });
  // The socket listens already; but httplib 0.11 forgets a stop() that comes before its loop runs.
  while (!server.is_running() && !impl_->ended) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return port;
}

void HttpServer::Stop() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

absl::Status PortError(const std::string& address, int port, const std::string& flag) {
  return absl::UnavailableError(
      fmt::format("cannot listen on {} port {} ({}): in use, or no address of this machine",
                  address, port, flag));
}

}  // namespace dimmer
