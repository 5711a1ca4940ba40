// Runs grids: a fiber for each thread of a block, one block after the other.
//
// Every access is looked at: bounds, alignment, and in shared memory that bytes which one thread
// writes are touched by no other without a barrier in between. Settings, from the environment:
//
//   PTX_ORDER           forward, reversed or shuffled: of the threads of a block, and of the blocks
//   PTX_HAZARDS         1: a byte of global memory that a thread writes is written once in a
//                       launch, and no other thread reads it, before or after; and nothing is read
//                       that nobody has written
//   PTX_APPROXIMATIONS  nearest, up, down or mixed: where the hardware's lie within their bounds
#include "machine.h"

#include <cxxabi.h>
#include <sys/mman.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <random>

#if !defined(__x86_64__)
#error "The switch between fibers is written for x86-64"
#endif

namespace ptx {
namespace {

std::string setting(const char* name, std::initializer_list<const char*> choices) {
  const char* const given = std::getenv(name);
  if (given == nullptr) return *choices.begin();
  for (const char* choice : choices)
    if (std::string(choice) == given) return given;
  std::fprintf(stderr, "%s=%s is not one of its settings\n", name, given);
  std::abort();
}

const std::string order = setting("PTX_ORDER", {"forward", "reversed", "shuffled"});
const bool hazards = setting("PTX_HAZARDS", {"0", "1"}) == "1";
const std::string approximations =
    setting("PTX_APPROXIMATIONS", {"nearest", "up", "down", "mixed"});

// ---- what there is

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

// Global memory that a kernel may reach.
struct Area {
  uint64_t begin, end;
  bool writable;
  // Where hazards are looked for, and of each byte: the thread of this launch that wrote it, that
  // read it, or none or several of them; and whether nobody has written it since it was allocated.
  std::vector<uint32_t> writers, readers;
  std::vector<bool> holds_nothing;

  static constexpr uint32_t kNobody = 0, kSeveral = 0xffffffff;  // other numbers are one thread's
};
std::vector<Area> areas, constants;
std::vector<std::pair<uint64_t, uint64_t>> unwritten;  // begin and end

// ---- what runs

constexpr uint32_t kWarp = 32;
constexpr size_t kStack = 128 << 10;

// Of a byte of shared memory.
struct Shadow {
  static constexpr uint16_t kNobody = 0xffff, kSeveral = 0xfffe;
  uint16_t writer = kNobody, reader = kNobody;
  uint32_t written = 0, read = 0;  // when, in barriers; 0: never
};

struct Fiber {
  void* stack_pointer;
  uint8_t* stack;
  Thread thread;
};

std::vector<Fiber> fibers;
Fiber* running = nullptr;
void* scheduler = nullptr;  // its stack pointer

const Kernel* kernel = nullptr;
const uint8_t* parameters = nullptr;
std::vector<uint8_t> shared;
std::vector<Shadow> shadows;
uint32_t barriers = 1;  // that the block has passed, and 1
std::string name, fault;

// Saves the registers that a call keeps, and goes on where `to` was left.
extern "C" void ptx_switch(void** from, void* to);
asm(R"(
.text
.type ptx_switch, @function
ptx_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ptx_switch, . - ptx_switch
)");

void leave() {
  ptx_switch(&running->stack_pointer, scheduler);
}

void resume(Fiber& fiber) {
  running = &fiber;
  ptx_switch(&scheduler, fiber.stack_pointer);
}

void run_fiber() {
  for (;;) {
    kernel->run(parameters, running->thread);
    running->thread.state = State::kDone;
    leave();
  }
}

// At its beginning, whatever it was doing before.
void reset(Fiber& fiber) {
  void** top = reinterpret_cast<void**>(fiber.stack + kStack);
  *--top = nullptr;  // where a call leaves its return address: the stack is aligned below it
  *--top = reinterpret_cast<void*>(&run_fiber);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
}

void make_fibers(uint32_t count) {
  while (fibers.size() < count) {
    void* const stack =
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    fibers.push_back({nullptr, static_cast<uint8_t*>(stack), {}});
  }
}

// ---- faults

std::string demangled(const std::string& mangled) {
  int status = 0;
  char* const text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  if (status != 0) return mangled;
  const std::string result = text;
  std::free(text);
  return result.substr(0, result.rfind('('));
}

std::string describe(const Thread& thread, int site) {
  const Site& s = kernel->sites[site];
  return "block " + std::to_string(thread.block) + ", thread " + std::to_string(thread.id) +
         ", at `" + s.instruction + "` (" + s.source + ") of " + demangled(name);
}

// The first counts. A thread that is at fault stops there.
void report(const Thread& thread, int site, const std::string& what) {
  if (fault.empty()) fault = what + ": " + describe(thread, site);
}

void stop(Thread& thread, int site, const std::string& what) {
  report(thread, site, what);
  thread.state = State::kDone;
  leave();
}

std::string bytes(uint32_t size, const char* access) {
  return access + std::string(" of ") + std::to_string(size) + (size == 1 ? " byte" : " bytes");
}

// ---- scheduling

// Gives each lane of a warp, all of which wait at one shuffle, its value.
void exchange(Fiber* warp) {
  uint32_t values[kWarp];
  for (uint32_t lane = 0; lane < kWarp; ++lane) values[lane] = warp[lane].thread.shuffled.value;
  for (uint32_t lane = 0; lane < kWarp; ++lane) {
    Thread& t = warp[lane].thread;
    const uint32_t from = lane + t.shuffled.lanes;
    t.shuffled.is_inside = from < kWarp;
    t.shuffled.value = values[t.shuffled.is_inside ? from : lane];
    t.state = State::kRunning;
  }
}

// Until every lane has ended or waits at a barrier.
void run_warp(Fiber* warp, const std::vector<uint32_t>& lanes) {
  for (;;) {
    for (const uint32_t lane : lanes)
      if (warp[lane].thread.state == State::kRunning && fault.empty()) resume(warp[lane]);
    if (!fault.empty()) return;
    uint32_t waiting = 0;
    const Thread* first = nullptr;
    for (uint32_t lane = 0; lane < kWarp; ++lane) {
      const Thread& t = warp[lane].thread;
      if (t.state != State::kAtShuffle) continue;
      if (first == nullptr) first = &t;
      if (t.site != first->site) return report(t, t.site, "lanes of a warp at different shuffles");
      ++waiting;
    }
    if (waiting == 0) return;
    if (waiting < kWarp)
      return report(*first, first->site,
                    "a shuffle that only " + std::to_string(waiting) + " lanes of a warp reach");
    exchange(warp);
  }
}

void run_block(uint32_t threads, const std::vector<uint32_t>& lanes,
               const std::vector<uint32_t>& warps) {
  std::fill(shared.begin(), shared.end(), uint8_t(0xa7));
  std::fill(shadows.begin(), shadows.end(), Shadow{});
  barriers = 1;
  for (;;) {
    for (const uint32_t warp : warps) {
      run_warp(&fibers[warp * kWarp], lanes);
      if (!fault.empty()) return;
    }
    const Thread* first = nullptr;
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < threads; ++i) {
      const Thread& t = fibers[i].thread;
      if (t.state != State::kAtBarrier) continue;
      if (first == nullptr) first = &t;
      if (t.site != first->site)
        return report(t, t.site, "threads of a block at different barriers");
      ++waiting;
    }
    if (waiting == 0) return;
    if (waiting < threads)
      return report(*first, first->site,
                    "a barrier that only " + std::to_string(waiting) + " threads of " +
                        std::to_string(threads) + " reach");
    ++barriers;
    for (uint32_t i = 0; i < threads; ++i) fibers[i].thread.state = State::kRunning;
  }
}

// 0 … n−1 as PTX_ORDER says.
std::vector<uint32_t> ordered(uint32_t n) {
  std::vector<uint32_t> result(n);
  std::iota(result.begin(), result.end(), 0u);
  if (order == "reversed") std::reverse(result.begin(), result.end());
  if (order == "shuffled") std::shuffle(result.begin(), result.end(), std::mt19937(n));
  return result;
}

void run_grid(uint32_t blocks, uint32_t threads) {
  make_fibers(kernel->meets ? threads : 1);
  for (Fiber& fiber : fibers) reset(fiber);
  const std::vector<uint32_t> lanes = ordered(kWarp), warps = ordered(threads / kWarp);
  for (const uint32_t block : ordered(blocks)) {
    const auto begin = [&](Fiber& fiber, uint32_t id) {
      fiber.thread = {id, block, threads, blocks, State::kRunning, 0, {}};
    };
    if (kernel->meets) {
      for (uint32_t i = 0; i < threads; ++i) begin(fibers[i], i);
      run_block(threads, lanes, warps);
    } else {  // one fiber after the other, so one is enough
      for (const uint32_t warp : warps) {
        for (const uint32_t lane : lanes) {
          begin(fibers[0], warp * kWarp + lane);
          resume(fibers[0]);
          if (!fault.empty()) return;
        }
      }
    }
    if (!fault.empty()) return;
  }
}

Area* find_area(uint64_t at, uint32_t size, bool writable) {
  for (Area& area : areas)
    if (at >= area.begin && at + size <= area.end && (area.writable || !writable)) return &area;
  if (!writable)
    for (Area& area : constants)
      if (at >= area.begin && at + size <= area.end) return &area;
  return nullptr;
}

}  // namespace

// ---- what a thread does

void Thread::check_global_load(uint64_t at, uint32_t size, int site) {
  if (at % size != 0) stop(*this, site, bytes(size, "misaligned load"));
  Area* const area = find_area(at, size, false);
  if (area == nullptr) stop(*this, site, bytes(size, "load outside of all tensors,"));
  if (!hazards || !area->writable) return;
  const uint32_t self = block * threads + id + 1;
  for (uint64_t i = at - area->begin; i < at - area->begin + size; ++i) {
    if (area->writers[i] != Area::kNobody && area->writers[i] != self)
      stop(*this, site, bytes(size, "load of what another thread wrote in this launch,"));
    if (area->holds_nothing[i]) stop(*this, site, bytes(size, "load of what nobody has written,"));
    uint32_t& reader = area->readers[i];
    reader = reader == Area::kNobody || reader == self ? self : Area::kSeveral;
  }
}

void Thread::check_global_store(uint64_t at, uint32_t size, int site) {
  if (at % size != 0) stop(*this, site, bytes(size, "misaligned store"));
  Area* const area = find_area(at, size, true);
  if (area == nullptr) {
    const bool readable = find_area(at, size, false) != nullptr;
    stop(*this, site,
         bytes(size, readable ? "store into an argument," : "store outside of all tensors,"));
  }
  if (!hazards) return;
  const uint32_t self = block * threads + id + 1;
  for (uint64_t i = at - area->begin; i < at - area->begin + size; ++i) {
    if (area->writers[i] != Area::kNobody)
      stop(*this, site, bytes(size, "second store in this launch,"));
    if (area->readers[i] != Area::kNobody && area->readers[i] != self)
      stop(*this, site, bytes(size, "store over what another thread read in this launch,"));
    area->writers[i] = self;
    area->holds_nothing[i] = false;
  }
}

const uint8_t* Thread::check_shared_load(uint64_t at, uint32_t size, int site) {
  if (at % size != 0) stop(*this, site, bytes(size, "misaligned load from shared memory"));
  if (at + size > shared.size()) stop(*this, site, bytes(size, "load outside of shared memory,"));
  for (uint64_t i = at; i < at + size; ++i) {
    Shadow& s = shadows[i];
    if (s.written == 0)
      stop(*this, site, bytes(size, "load of shared memory that nobody has written,"));
    if (s.written == barriers && s.writer != id)
      stop(*this, site,
           "race in shared memory with thread " + std::to_string(s.writer) +
               ", which wrote since the last barrier; " + bytes(size, "load"));
    s.reader = s.read == barriers && s.reader != id ? Shadow::kSeveral : uint16_t(id);
    s.read = barriers;
  }
  return shared.data() + at;
}

uint8_t* Thread::check_shared_store(uint64_t at, uint32_t size, int site) {
  if (at % size != 0) stop(*this, site, bytes(size, "misaligned store to shared memory"));
  if (at + size > shared.size()) stop(*this, site, bytes(size, "store outside of shared memory,"));
  for (uint64_t i = at; i < at + size; ++i) {
    Shadow& s = shadows[i];
    if (s.written == barriers && s.writer != id)
      stop(*this, site,
           "race in shared memory with thread " + std::to_string(s.writer) +
               ", which wrote since the last barrier; " + bytes(size, "store"));
    if (s.read == barriers && s.reader != id)
      stop(*this, site,
           "race in shared memory with another thread, which read since the last barrier; " +
               bytes(size, "store"));
    s.writer = uint16_t(id);
    s.written = barriers;
  }
  return shared.data() + at;
}

void Thread::check_division(bool by_zero, int site) {
  if (by_zero) stop(*this, site, "integer division by zero");
}

void Thread::wait_at_barrier(int at) {
  site = at;
  state = State::kAtBarrier;
  leave();
}

uint32_t Thread::shuffle_down(uint32_t value, uint32_t lanes, uint32_t clamp, uint32_t members,
                              bool& is_inside, int at) {
  if (clamp != kWarp - 1 || members != 0xffffffffu)
    stop(*this, at, "a shuffle among some lanes of a warp");
  shuffled = {value, lanes, false};
  site = at;
  state = State::kAtShuffle;
  leave();
  is_inside = shuffled.is_inside;
  return shuffled.value;
}

// ---- arithmetic

float fma_downward(float a, float b, float c) {
  // The product is exact in double. Of the sum, `rest` is what rounding to double took away.
  const double product = double(a) * double(b), sum = product + double(c);
  const double part = sum - product, rest = (product - (sum - part)) + (double(c) - part);
  const float result = float(sum);
  const bool above = double(result) > sum || (double(result) == sum && rest < 0);
  return above ? std::nextafterf(result, -INFINITY) : result;
}

float half_to_float(uint16_t x) {
  return float(std::bit_cast<_Float16>(x));
}

uint16_t float_to_half(float x) {
  return std::isnan(x) ? 0x7fff : std::bit_cast<uint16_t>(_Float16(x));
}

uint16_t float_to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::isnan(x) ? 0x7fff : uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

namespace {

float flush(float x) {
  return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}

// `ulps` away at most, by what the argument is where they are mixed.
float perturb(float nearest, int ulps, float argument) {
  static const int way = approximations == "up"      ? 1
                         : approximations == "down"  ? -1
                         : approximations == "mixed" ? 2
                                                     : 0;
  if (way == 0 || !std::isfinite(nearest) || nearest == 0) return nearest;
  const uint32_t hash = (std::bit_cast<uint32_t>(argument) * 2654435761u) >> 8;
  int steps = way == 2 ? int(hash % uint32_t(2 * ulps + 1)) - ulps : way * ulps;
  for (; steps > 0; --steps) nearest = std::nextafterf(nearest, INFINITY);
  for (; steps < 0; ++steps) nearest = std::nextafterf(nearest, -INFINITY);
  return nearest;
}

}  // namespace

// Within 1 ulp (PTX ISA, rcp).
float approximate_reciprocal(float x) {
  x = flush(x);
  return flush(perturb(float(1.0 / double(x)), 1, x));
}

// Within 2 ulps, and 1 for 0 (PTX ISA, ex2).
float approximate_exp2(float x) {
  x = flush(x);
  if (x == 0) return 1.0f;
  return flush(perturb(float(std::exp2(double(x))), 2, x));
}

// Of the argument and of the result only the upper half counts: a first guess for Newton's steps.
double approximate_reciprocal(double x) {
  constexpr uint64_t kUpper = 0xffffffff00000000u;
  const auto upper = [](double y) {
    return std::bit_cast<double>(std::bit_cast<uint64_t>(y) & kUpper);
  };
  x = upper(x);
  return upper(std::abs(x) < 0x1p-1022 ? std::copysign(INFINITY, x) : 1.0 / x);
}

// ---- the launching side

void add_kernel(const char* mangled, Kernel k) {
  kernels()[mangled] = std::move(k);
}

void add_constant(const void* data, size_t size) {
  const auto at = reinterpret_cast<uint64_t>(data);
  constants.push_back({at, at + size, false, {}, {}, {}});
}

void add_unwritten(void* data, size_t size) {
  std::memset(data, 0xff, size);  // NaN, in every type that has one
  unwritten.emplace_back(reinterpret_cast<uint64_t>(data), reinterpret_cast<uint64_t>(data) + size);
}

void add_area(const void* data, size_t size, bool writable) {
  const auto begin = reinterpret_cast<uint64_t>(data);
  for (const Area& area : areas)
    if (area.begin == begin && area.end >= begin + size && area.writable == writable) return;
  Area area{begin, begin + size, writable, {}, {}, {}};
  if (hazards && writable) {
    area.holds_nothing.assign(size, false);
    for (const auto& [from, to] : unwritten)
      for (uint64_t at = std::max(from, begin); at < std::min(to, begin + size); ++at)
        area.holds_nothing[at - begin] = true;
  }
  // Writable ones are found first: of memory that is both an argument and a result, hazards count.
  areas.insert(writable ? areas.begin() : areas.end(), std::move(area));
}

void forget_areas() {
  areas.clear();
  unwritten.clear();
}

std::string launch(const std::string& mangled, uint32_t blocks, uint32_t threads,
                   void** arguments) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const auto found = kernels().find(mangled);
  if (found == kernels().end()) return "no PTX of " + demangled(mangled);
  kernel = &found->second;
  name = mangled;
  if (threads > kernel->most_threads || threads % kWarp != 0)
    return demangled(mangled) + " cannot have blocks of " + std::to_string(threads) + " threads";
  std::vector<uint8_t> given(4096);
  for (size_t i = 0; i < kernel->parameters.size(); ++i) {
    const auto [offset, size] = kernel->parameters[i];
    std::memcpy(given.data() + offset, arguments[i], size);
  }
  parameters = given.data();
  shared.resize(kernel->shared_size);
  shadows.resize(kernel->shared_size);
  if (hazards)
    for (Area& area : areas)
      for (auto* of : {&area.writers, &area.readers})
        if (area.writable) of->assign(area.end - area.begin, Area::kNobody);
  fault.clear();
  const unsigned control = _mm_getcsr();
  _mm_setcsr(0x1f80);  // round to nearest and keep subnormal numbers, whatever the caller does
  run_grid(blocks, threads);
  _mm_setcsr(control);
  return fault;
}

}  // namespace ptx
