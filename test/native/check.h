#pragma once

// The little that these tests need of a test framework.

#include <cstdio>
#include <cstring>

inline int failures = 0;
inline int checks = 0;

#define CHECK(condition)                                                        \
  do {                                                                          \
    checks++;                                                                   \
    if (!(condition)) {                                                         \
      failures++;                                                               \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                           \
  } while (0)

#define CHECK_EQ(actual, expected)                                                                          \
  do {                                                                                                      \
    checks++;                                                                                               \
    const long long actual_ = static_cast<long long>(actual), expected_ = static_cast<long long>(expected); \
    if (actual_ != expected_) {                                                                             \
      failures++;                                                                                           \
      fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #actual, actual_, expected_);    \
    }                                                                                                       \
  } while (0)

#define CHECK_TEXT(actual, expected)                                                                              \
  do {                                                                                                            \
    checks++;                                                                                                     \
    const char* const actual_ = actual;                                                                           \
    if (actual_ == nullptr || strcmp(actual_, expected) != 0) {                                                   \
      failures++;                                                                                                 \
      fprintf(stderr, "%s:%d: %s is '%s', not '%s'\n", __FILE__, __LINE__, #actual, actual_ ? actual_ : "(null)", \
              expected);                                                                                          \
    }                                                                                                             \
  } while (0)

inline int result() {
  printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
