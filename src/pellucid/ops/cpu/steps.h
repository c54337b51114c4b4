// A decode step as a list of calls that the threads of one team make together. A plain C interface.

#pragma once

#include <cstdint>

// One thread of those that share a call.
struct Team {
  int thread, threads;
  std::int64_t *next;  // pieces of the call that somebody has taken; 0 at first
};

// A thread's share of a call: 0, or what failed.
typedef std::int64_t (*Share)(const void *work, const Team &);

// As Python packs it (steps.py): 8 bytes each.
struct Call {
  Share run;
  const void *work;
  std::int64_t shared;  // whether all threads make it, or the first alone
  std::int64_t wait;    // whether all wait for each other before it
  std::int64_t next;
};
