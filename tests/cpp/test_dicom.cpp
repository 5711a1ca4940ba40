// csrc/dicom/elements.h, without Python: what it finds in small headers, and that it reads nothing
// outside of them, which the sanitizers see. tests/data/test_elements.py holds it against a second
// walk, of the same things in Python.
#include "dicom/elements.h"

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"

namespace {

using namespace ichfast::dicom;

using Values = std::vector<std::pair<size_t, std::string>>;

std::string number(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += char(value >> 8 * i & 0xFF);
  return text;
}

std::string tag(uint32_t value) {
  return number(value >> 16, 2) + number(value & 0xFFFF, 2);
}

std::string explicit_element(uint32_t at, const std::string& vr, const std::string& value) {
  return tag(at) + vr +
         (is_long(vr) ? number(0, 2) + number(value.size(), 4) : number(value.size(), 2)) + value;
}

std::string implicit_element(uint32_t at, const std::string&, const std::string& value) {
  return tag(at) + number(value.size(), 4) + value;
}

const std::string kUndefinedLength = number(kUndefined, 4);
const std::string kEnd = tag(kEndOfSequence) + number(0, 4);

std::string sequence(bool is_explicit, const std::string& item) {
  return tag(0x00081110) + (is_explicit ? "SQ" + number(0, 2) : "") + kUndefinedLength +
         tag(kItem) + kUndefinedLength + item + tag(kEndOfItem) + number(0, 4) + tag(kItem) +
         number(item.size(), 4) + item + kEnd;
}

std::string file(bool is_explicit) {
  const auto element = is_explicit ? explicit_element : implicit_element;
  const std::string inner = sequence(is_explicit, element(0x00081150, "UI", "1.2 "));
  return std::string(128, '\0') + "DICM" +
         explicit_element(kSyntax, "UI", std::string(kImplicit) + (is_explicit ? ".1" : "")) +
         element(kCharacterSet, "CS", "ISO_IR 100") + element(0x00080060, "CS", "CT") +
         sequence(is_explicit, inner) + element(0x00280010, "US", number(512, 2)) +
         element(0x00281053, "DS", "1 ") + element(0x7FE00010, "OW", "pixels");
}

const uint32_t kWanted[] = {0x00080060, 0x00080061, 0x00280010, 0x00281053};

// In memory of exactly its size, so that one byte more is seen.
std::optional<Values> walk(const std::string& data, size_t* pixels = nullptr) {
  const std::unique_ptr<char[]> copy(new char[data.size()]);
  std::copy(data.begin(), data.end(), copy.get());
  const auto is_sequence = [](uint32_t at) { return at == 0x00081110; };
  Values found;
  try {
    Walk steps(std::string_view(copy.get(), data.size()), is_sequence);
    const Header header = steps.header(
        kWanted, 4, [&](size_t i, auto, auto value) { found.emplace_back(i, std::string(value)); });
    if (pixels) *pixels = header.pixels;
  } catch (const Unsure&) {
    return std::nullopt;
  }
  return found;
}

void test_found(bool is_explicit) {
  const Values expected{{0, "CT"}, {2, number(512, 2)}, {3, "1 "}};
  const std::string whole = file(is_explicit);
  size_t pixels = 0;
  CHECK(walk(whole, &pixels) == expected);
  CHECK(pixels == whole.rfind(tag(0x7FE00010)));
}

void test_beginnings(bool is_explicit) {
  const std::string whole = file(is_explicit);
  const size_t enough = whole.size() - std::string("pixels").size();
  for (size_t size = 0; size <= whole.size(); ++size)
    CHECK(walk(whole.substr(0, size)).has_value() == (size >= enough));
}

void test_mutants(bool is_explicit) {
  std::mt19937 random(0);
  const std::string whole = file(is_explicit);
  const std::string words[] = {kUndefinedLength, number(0xFFFFFFFE, 4), number(0x7FFFFFFF, 4),
                               number(0, 4)};
  int taken = 0;
  for (int k = 0; k < 20000; ++k) {
    std::string data = whole;
    for (unsigned hits = 1 + random() % 3; hits-- > 0;) {
      const size_t at = 128 + random() % (data.size() - 128);
      switch (random() % 4) {
        case 0:
          data[at] = char(random());
          break;
        case 1:
          data.erase(at, 1 + random() % 4);
          break;
        case 2:
          data.insert(at, 1 + random() % 4, char(random()));
          break;
        default:
          data.replace(at, 4, words[random() % 4]);
      }
    }
    taken += walk(data).has_value();
  }
  std::printf("mutants: %d of 20000 walked\n", taken);
  CHECK(taken > 500 && taken < 19500);
}

// Deeper than the walk goes: Unsure, and no end of the stack.
void test_depth(bool is_explicit) {
  std::string open;
  for (int depth = 0; depth < 100000; ++depth)
    open += tag(0x00081110) + (is_explicit ? "SQ" + number(0, 2) : "") + kUndefinedLength +
            tag(kItem) + kUndefinedLength;
  const std::string whole = file(is_explicit);
  CHECK(!walk(whole.substr(0, whole.find(tag(0x00280010))) + open));
}

}  // namespace

int main() {
  for (const bool is_explicit : {false, true}) {
    test_found(is_explicit);
    test_beginnings(is_explicit);
    test_mutants(is_explicit);
    test_depth(is_explicit);
  }
  return failures != 0;
}
