// SPDX-License-Identifier: GPL-2.0-only
// SHA-256 (FIPS 180-4), for the content hash that binds a certificate to its artifact.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace mdplugin {

class Sha256 {
 public:
  /// Append `size` bytes to the message.
  void update(const void *data, std::size_t size);

  /// Close the message; the digest in hexadecimal.
  std::string finish();

 private:
  void absorb(const unsigned char *block);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_{};
  std::uint64_t length_ = 0;  // bytes so far
};

}  // namespace mdplugin
