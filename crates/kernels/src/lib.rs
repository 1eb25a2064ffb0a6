//! CPU kernels over views, weight packing, the thread team.
