//! Gauss–Legendre quadrature with 16 nodes on a list of panels: the integrals of the BTYD models.
//!
//! It never chooses where to cut an integral: its callers know where their integrands live.

/// The positive half of the nodes on [−1, 1] and their weights; the other half is the mirror image.
const NODES: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_5),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_6),
    (0.458_016_777_657_227_37, 0.169_156_519_395_002_65),
    (0.617_876_244_402_643_8, 0.149_595_988_816_576_7),
    (0.755_404_408_355_003, 0.124_628_971_255_533_87),
    (0.865_631_202_387_831_8, 0.095_158_511_682_492_52),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_456),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_18),
];

/// Visits the nodes of a panel: `f(place, weight)`, the weights adding up to the panel's length.
pub(crate) fn visit(from: f64, to: f64, mut f: impl FnMut(f64, f64)) {
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    for (node, weight) in NODES {
        f(middle - half * node, weight * half);
        f(middle + half * node, weight * half);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_up_to_degree_31_are_exact() {
        for degree in 0..32 {
            let exact = (libm::pow(3.0, f64::from(degree) + 1.0) - 1.0) / (f64::from(degree) + 1.0);
            let mut got = 0.0;
            visit(1.0, 3.0, |x, weight| {
                got += weight * (0..degree).fold(1.0, |power, _| power * x)
            });
            assert!((got - exact).abs() <= 1e-13 * exact, "x^{degree}: {got} != {exact}");
        }
    }
}
