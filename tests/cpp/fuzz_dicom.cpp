// csrc/dicom/elements.h under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer: it reads
// nothing outside of the file, ends, and what it finds lies where it says. tools/fuzz.py runs it
// and compares what it collected with pydicom.
#include "dicom/elements.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tags.h"  // kTags: those that ichfast.data.headers wants; written by tools/fuzz.py

namespace {

using namespace ichfast::dicom;

#define REQUIRE(condition)                                                     \
  do {                                                                         \
    if (!(condition)) {                                                        \
      std::fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                            \
    }                                                                          \
  } while (false)

struct Found {
  std::vector<std::pair<size_t, std::string>> values;
  std::string syntax;
  size_t pixels = 0;
  bool walked = false;
  bool operator==(const Found&) const = default;
};

// In memory of exactly its size, so that one byte more is seen.
Found walk(const std::string& file, size_t size) {
  const std::unique_ptr<char[]> copy(new char[size]);
  std::copy_n(file.data(), size, copy.get());
  const std::string_view data(copy.get(), size);
  const auto is_sequence = [](uint32_t tag) {
    return tag == 0x00081110 || tag == 0x00081140 || tag == 0x00283000 || tag == 0x52009229;
  };
  const auto lies_inside = [&](std::string_view part) {
    return part.empty() ||
           (part.data() >= data.data() && part.data() + part.size() <= data.data() + data.size());
  };
  Found found;
  try {
    Walk steps(data, is_sequence);
    const Header header = steps.header(kTags, std::size(kTags), [&](size_t i, auto vr, auto value) {
      REQUIRE(i < std::size(kTags));
      REQUIRE(found.values.empty() || found.values.back().first < i);
      REQUIRE(lies_inside(vr) && lies_inside(value));
      found.values.emplace_back(i, std::string(value));
    });
    REQUIRE(lies_inside(header.syntax));
    REQUIRE(header.pixels >= 132 && header.pixels + 8 <= size);
    REQUIRE(data.substr(header.pixels, 2) == std::string_view("\xe0\x7f"));
    found.syntax = header.syntax;
    found.pixels = header.pixels;
    found.walked = true;
  } catch (const Unsure&) {
  }
  return found;
}

}  // namespace

// What comes behind the preamble and "DICM".
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string file(128, '\0');
  file += "DICM";
  file.append(reinterpret_cast<const char*>(data), size);
  const Found whole = walk(file, file.size());
  // The pixels change nothing: a file's beginning is enough, and without PixelData it is not.
  if (whole.walked) {
    const size_t enough = std::min(file.size(), whole.pixels + 12);
    REQUIRE(walk(file, enough) == whole);
    REQUIRE(!walk(file, whole.pixels).walked);
  }
  return 0;
}
