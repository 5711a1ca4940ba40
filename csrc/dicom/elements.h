// The elements of a plain little-endian DICOM file (PS3.5 chapter 7, PS3.10 chapter 7).
//
// Nothing in the file is trusted: no byte is read that was not seen to be there, and whatever is
// not plain (big-endian, deflated, tags out of order, an unknown VR, a length that leads nowhere)
// is Unsure, and left to pydicom.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ichfast::dicom {

struct Unsure {};

struct Element {
  uint32_t tag;
  std::string_view vr;  // empty where it is implicit
  size_t start;         // of its value
  uint32_t length;
};

struct Header {
  std::string_view syntax;
  size_t pixels;  // where PixelData begins
};

constexpr uint32_t kUndefined = 0xFFFFFFFF;
constexpr uint32_t kItem = 0xFFFEE000, kEndOfItem = 0xFFFEE00D, kEndOfSequence = 0xFFFEE0DD;
constexpr uint32_t kSyntax = 0x00020010, kCharacterSet = 0x00080005;
constexpr int kDepth = 16;  // of nested sequences
constexpr std::string_view kImplicit = "1.2.840.10008.1.2";

template <size_t n>
bool one_of(std::string_view value, const std::string_view (&known)[n]) {
  return std::find(known, known + n, value) != known + n;
}

inline bool is_short(std::string_view vr) {  // in its length: 16 bits
  constexpr std::string_view known[] = {"AE", "AS", "AT", "CS", "DA", "DS", "DT",
                                        "FL", "FD", "IS", "LO", "LT", "PN", "SH",
                                        "SL", "SS", "ST", "TM", "UI", "UL", "US"};
  return one_of(vr, known);
}

inline bool is_long(std::string_view vr) {
  constexpr std::string_view known[] = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ",
                                        "SV", "UC", "UN", "UR", "UT", "UV"};
  return one_of(vr, known);
}

inline std::string_view without_end(std::string_view text, std::string_view characters) {
  return text.substr(0, text.find_last_not_of(characters) + 1);
}

// The transfer syntax without its padding, if its elements are plain: little-endian, implicit,
// explicit or encapsulated, which is explicit as well.
inline std::string_view plain_syntax(std::string_view value) {
  if (!value.empty() && (value.back() == '\0' || value.back() == ' ')) value.remove_suffix(1);
  constexpr std::string_view encapsulated = "1.2.840.10008.1.2.4.";
  constexpr std::string_view others[] = {kImplicit, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"};
  if (one_of(value, others)) return value;
  if (!value.starts_with(encapsulated) || value.size() == encapsulated.size()) throw Unsure();
  if (value.find_first_not_of("0123456789", encapsulated.size()) != value.npos) throw Unsure();
  return value;
}

// Walks the elements of `data`: a file, or enough of its beginning. `is_sequence` tells of a tag
// what only a dictionary knows where the VR is implicit.
template <class IsSequence>
class Walk {
 public:
  Walk(std::string_view data, const IsSequence& is_sequence)
      : data_(data), is_sequence_(is_sequence) {}

  // Calls found(i, vr, value) for the i-th of the n wanted tags (they ascend), as far as they come
  // before PixelData.
  template <class Found>
  Header header(const uint32_t* wanted, size_t n, const Found& found) {
    size_t at = 132;
    if (data_.size() < at || data_.substr(at - 4, 4) != "DICM") throw Unsure();
    const std::string_view syntax = plain_syntax(file_meta(at));
    explicit_ = syntax != kImplicit;
    if (!explicit_ && at + 6 <= data_.size() && is_letter(data_[at + 4]) &&
        is_letter(data_[at + 5]))
      throw Unsure();  // says implicit and looks explicit
    const uint32_t* next = wanted;
    for (uint32_t before = 0x0007FFFF;;) {  // no file meta, no command set
      const Element e = element(at);
      if (e.tag == 0x7FE00008 || e.tag == 0x7FE00009 || e.tag == 0x7FE00010) return {syntax, at};
      if (e.tag <= before || e.tag >= 0xFFFE0000) throw Unsure();
      before = e.tag;
      while (next != wanted + n && *next < e.tag) ++next;
      const bool is_wanted = next != wanted + n && *next == e.tag;
      if (e.length == kUndefined) {
        if (is_wanted) throw Unsure();
        at = after_sequence(e, 0);
        continue;
      }
      at = after(e);
      if (is_wanted)
        found(size_t(next - wanted), e.vr, value(e));
      else
        check_character_set(e);
    }
  }

 private:
  static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

  void need(size_t at, size_t bytes) const {
    if (at > data_.size() || data_.size() - at < bytes) throw Unsure();
  }

  // Of bytes that are there.
  uint32_t number(size_t at, int bytes) const {
    uint32_t result = 0;
    for (int i = bytes; i-- > 0;) result = result << 8 | uint8_t(data_[at + i]);
    return result;
  }

  uint32_t tag(size_t at) const { return number(at, 2) << 16 | number(at + 2, 2); }

  std::string_view value(const Element& e) const { return data_.substr(e.start, e.length); }

  size_t after(const Element& e) const {
    need(e.start, e.length);
    return e.start + e.length;
  }

  Element element(size_t at) const {
    need(at, 8);
    if (!explicit_) return {tag(at), {}, at + 8, number(at + 4, 4)};
    const std::string_view vr = data_.substr(at + 4, 2);
    if (is_short(vr)) return {tag(at), vr, at + 8, number(at + 6, 2)};
    if (is_long(vr)) {
      need(at, 12);
      return {tag(at), vr, at + 12, number(at + 8, 4)};
    }
    if (tag(at) < 0xFFFE0000) throw Unsure();  // delimiters have no VR
    return {tag(at), {}, at + 8, number(at + 4, 4)};
  }

  // The value of TransferSyntaxUID; `at` moves behind the group.
  std::string_view file_meta(size_t& at) {
    std::string_view syntax;
    for (int64_t before = -1; data_.substr(at, 2) == std::string_view("\x02\0", 2);) {
      const Element e = element(at);
      if (e.tag <= before) throw Unsure();
      if (e.tag == 0x00020000 && (e.vr != "UL" || e.length != 4)) throw Unsure();
      before = e.tag;
      at = after(e);
      if (e.tag == kSyntax && e.vr == "UI") syntax = value(e);
    }
    return syntax;
  }

  // Where a sequence of undefined length ends.
  size_t after_sequence(const Element& sequence, int depth) {
    if (depth > kDepth || !(explicit_ ? sequence.vr == "SQ" : is_sequence_(sequence.tag)))
      throw Unsure();
    for (size_t at = sequence.start;;) {
      need(at, 8);
      const uint32_t mark = tag(at), length = number(at + 4, 4);
      at += 8;
      if (mark == kEndOfSequence && length == 0) return at;
      if (mark != kItem) throw Unsure();
      at = after_item(at, length, depth);
    }
  }

  size_t after_item(size_t at, uint32_t length, int depth) {
    const bool delimited = length == kUndefined;
    if (!delimited) need(at, length);
    const size_t end = delimited ? data_.size() : at + length;
    while (at < end) {
      const Element e = element(at);
      if (e.tag == kEndOfItem && e.length == 0 && delimited) return e.start;
      if (e.tag >= 0xFFFE0000) throw Unsure();
      if (e.length == kUndefined) {
        at = after_sequence(e, depth + 1);
      } else {
        at = after(e);
        check_character_set(e);
      }
    }
    if (at != end || delimited) throw Unsure();
    return at;
  }

  // pydicom looks at it, and may stumble over others than these.
  void check_character_set(const Element& e) const {
    if (e.tag != kCharacterSet) return;
    constexpr std::string_view known[] = {"",           "ISO_IR 6",   "ISO_IR 100",
                                          "ISO_IR 101", "ISO_IR 192", "GB18030"};
    if (!one_of(without_end(value(e), " \t\n\r\v\f"), known)) throw Unsure();
  }

  const std::string_view data_;
  const IsSequence& is_sequence_;
  bool explicit_ = true;  // as the file meta is
};

}  // namespace ichfast::dicom
