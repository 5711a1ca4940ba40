#pragma once

namespace ichfast {

// Whether numbers too small for a full mantissa count as 0 from now on, on the calling thread and
// the others of torch's pool of so many. Returns what held on the calling thread. Does nothing on
// processors other than x86-64 and AArch64.
bool flush_denormals(bool on, int threads);

}  // namespace ichfast
