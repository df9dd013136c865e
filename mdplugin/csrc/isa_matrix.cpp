// SPDX-License-Identifier: MIT
// Kernels of short types for one instruction set; compiled once for each (native.py), with MDPLUGIN_ISA naming it.
#include "kernel_matrix.h"

namespace mdplugin::MDPLUGIN_ISA {

const MatrixKernels &matrix_kernels() {
  static const MatrixKernels table = {MDPLUGIN_DOT != 0, &multiply, &round_half};
  return table;
}

}  // namespace mdplugin::MDPLUGIN_ISA
