// Included before all else by files whose sums of products have the same bits on every processor
// (math/product.h): GCC fuses none in them.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#endif
