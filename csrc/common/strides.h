// Where the voxels of a (B, C, *spatial) tensor lie, in elements.
#pragma once

#include <cstdint>

namespace ichfast {

// Element (b, c, i), i counting voxels in row-major order, lies at b·image + c·channel + i·voxel.
struct Strides {
  int64_t image, channel, voxel;
};

}  // namespace ichfast
