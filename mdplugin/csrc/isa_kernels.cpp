// SPDX-License-Identifier: MIT
// All kernels for one instruction set; compiled once for each (native.py), with MDPLUGIN_ISA naming it.
#include "kernel_contraction.h"
#include "kernel_convolution.h"
#include "kernel_geometry.h"

namespace mdplugin::MDPLUGIN_ISA {

template <typename T>
constexpr Kernels<T> table = {&edge_geometry<T>, &reverse_edge_geometry<T>, &convolve<T>, &reverse_convolve<T>,
                              &add_rows<T>,      &radial_function<T>,       &contract<T>, &reverse_contract<T>};

const Kernels<float> &float_kernels() { return table<float>; }
#if !MDPLUGIN_DOT
const Kernels<double> &double_kernels() { return table<double>; }
#endif

}  // namespace mdplugin::MDPLUGIN_ISA
