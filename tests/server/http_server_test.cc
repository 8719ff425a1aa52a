#include "server/http_server.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <thread>
#include <vector>

#include "tests/scheduler/fake_model.h"

namespace dimmer {
namespace {

TEST(HttpServerTest, AFewBusyConnectionsDoNotStarveAProbe) {
  Turnstile turnstile;
  HttpServer server;
  server.Route("/live", [] { return HttpAnswer{}; });
  server.Route("/held", [&] {
    turnstile.Pass();
    return HttpAnswer{};
  });
  const auto port = server.Start("127.0.0.1", 0, "--http-port");
  ASSERT_TRUE(port.ok()) << port.status();
  const auto get = [&](const char* path) {
    const auto answer = httplib::Client("127.0.0.1", *port).Get(path);
    EXPECT_TRUE(answer) << path;
    if (answer) {
      EXPECT_EQ(answer->status, 200);
    }
  };
  constexpr size_t kHeld = 8;
  std::vector<std::thread> clients;
  for (size_t i = 0; i < kHeld; ++i) clients.emplace_back([&] { get("/held"); });
  turnstile.AwaitArrivals(kHeld);  // all of them occupy a thread
  get("/live");
  turnstile.Open();
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace dimmer
