# Options shared by every target, and the two functions that folders use to add code.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

find_package(Threads REQUIRED)

add_library(dimmer_options INTERFACE)
target_include_directories(dimmer_options INTERFACE ${CMAKE_SOURCE_DIR})
# Noise from gcc 12: members left out of a designated initializer; overlaps that it imagines when it
# inlines std::string's operator+ and assignment (gcc bug 105651).
target_compile_options(dimmer_options INTERFACE
  -Wall -Wextra -Wno-missing-field-initializers -Wno-restrict)
target_compile_definitions(dimmer_options INTERFACE DIMMER_VERSION="${PROJECT_VERSION}")
if(DIMMER_WERROR)
  target_compile_options(dimmer_options INTERFACE -Werror)
endif()
if(DIMMER_SANITIZE)
  target_compile_options(dimmer_options INTERFACE
    -fsanitize=${DIMMER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(dimmer_options INTERFACE -fsanitize=${DIMMER_SANITIZE})
endif()

# dimmer_library(NAME SOURCES a.cc ... DEPS x y ...): a static library with the project's options.
function(dimmer_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC dimmer_options ${ARG_DEPS})
endfunction()

# dimmer_test(NAME SOURCES a_test.cc ... DEPS x y ... [LABELS l ...]): a GoogleTest binary whose cases
# are registered with CTest one by one.
function(dimmer_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  if(DIMMER_SANITIZE MATCHES thread)
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/tsan_suppressions.cc)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE dimmer_options ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE
    DIMMER_SOURCE_DIR="${CMAKE_SOURCE_DIR}" DIMMER_SHARED_DATA="${DIMMER_SHARED_DATA}")
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 120
    PROPERTIES TIMEOUT 900 LABELS "${ARG_LABELS}")
endfunction()

function(dimmer_print_summary)
  message(STATUS "Dimmer ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, sanitizers: [${DIMMER_SANITIZE}], "
    "ccache: ${CCACHE_PROGRAM}")
  message(STATUS "  server ${DIMMER_BUILD_SERVER}, training ${DIMMER_BUILD_TRAINING}, "
    "bench ${DIMMER_BUILD_BENCH}, tests ${DIMMER_BUILD_TESTS}, test data: ${DIMMER_SHARED_DATA}")
endfunction()
