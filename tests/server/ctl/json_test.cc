#include "server/ctl/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "dimmer/v1/admin.pb.h"
#include "dimmer/v1/inference.pb.h"

namespace dimmer::ctl {
namespace {

TEST(JsonTest, NumbersAreNumbersAndNamesAreThoseOfTheProto) {
  v1::Model model;
  model.set_name("m");
  model.set_weight_bytes(uint64_t{1} << 40);
  model.add_labels("joy");
  model.mutable_settings()->set_default_tau(0.25);
  model.mutable_settings()->mutable_expires()->set_seconds(1);
  (*model.mutable_provenance()->mutable_fields())["tool"].set_string_value("x");
  const Json json = ToJson(model);
  EXPECT_EQ(json["name"], "m");
  EXPECT_EQ(json["weight_bytes"], uint64_t{1} << 40);
  EXPECT_TRUE(json["weight_bytes"].is_number());
  EXPECT_EQ(json["ready"], false);  // defaults too
  EXPECT_EQ(json["labels"], Json::array({"joy"}));
  EXPECT_EQ(json["settings"]["default_tau"], 0.25);
  EXPECT_EQ(json["settings"]["expires"], "1970-01-01T00:00:01Z");
  EXPECT_EQ(json["provenance"]["tool"], "x");
  EXPECT_FALSE(json.contains("calibration"));  // a message that is not there
}

TEST(JsonTest, MapsFloatsAndWhatJsonCannotSay) {
  v1::ModelStats stats;
  (*stats.mutable_requests())["OK"] = 3;
  stats.set_tau_sum(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(ToJson(stats)["requests"]["OK"], 3);
  EXPECT_TRUE(ToJson(stats)["tau_sum"].is_null());
  v1::Label label;
  label.set_score(0.1f);
  EXPECT_EQ(ToJson(label)["score"].dump(), "0.1");
}

}  // namespace
}  // namespace dimmer::ctl
