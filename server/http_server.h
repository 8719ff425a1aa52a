// A small HTTP server for probes and scrapes: GET only, one body per path.
//
// Thread safety: construct, Route(), Start() and Stop() from one thread; handlers run on the
// server's own threads.
#ifndef DIMMER_SERVER_HTTP_SERVER_H_
#define DIMMER_SERVER_HTTP_SERVER_H_

#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <string>

namespace dimmer {

struct HttpAnswer {
  int status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

class HttpServer {
 public:
  HttpServer();
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void Route(const std::string& path, std::function<HttpAnswer()> handler);
  // Binds, serves on a thread of its own, and returns the port, picked if `port` is 0.
  // Unavailable: the address cannot be bound, e.g. the port is in use; names `flag`.
  absl::StatusOr<int> Start(const std::string& address, int port, const std::string& flag);
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// "port 8000 (--http-port) on 0.0.0.0: in use, or not an address of this machine"
absl::Status PortError(const std::string& address, int port, const std::string& flag);

}  // namespace dimmer

#endif  // DIMMER_SERVER_HTTP_SERVER_H_
