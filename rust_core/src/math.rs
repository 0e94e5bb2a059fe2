//! Transcendental functions: the one implementation that every number in this project comes from.
//!
//! Why: the system's math library, numpy and LLVM differ in the last bit, so a kernel compiled in
//! research and an expression evaluated live would disagree. Everything calls these.
//!
//! Invariants:
//! 1. Pure Rust (`libm`): the same bits on every machine, whatever library is installed.
//! 2. No state, no error code, no panic; a value outside the domain is NaN.
//!
//! Square roots and the four operations are exact in IEEE 754 and need no wrapper. Operator's page:
//! `docs/alphas.md`.

/// `e^x`.
#[must_use]
pub extern "C" fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `e^x - 1`, exact near zero.
#[must_use]
pub extern "C" fn expm1(x: f64) -> f64 {
    libm::expm1(x)
}

/// Natural logarithm; NaN below zero, minus infinity at zero.
#[must_use]
pub extern "C" fn log(x: f64) -> f64 {
    libm::log(x)
}

/// `ln(1 + x)`, exact near zero.
#[must_use]
pub extern "C" fn log1p(x: f64) -> f64 {
    libm::log1p(x)
}

/// Hyperbolic tangent.
#[must_use]
pub extern "C" fn tanh(x: f64) -> f64 {
    libm::tanh(x)
}

/// Error function.
#[must_use]
pub extern "C" fn erf(x: f64) -> f64 {
    libm::erf(x)
}

/// `x^y`.
#[must_use]
pub extern "C" fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// A function of one argument, as kernels call it.
pub type Unary = extern "C" fn(f64) -> f64;
/// A function of two arguments, as kernels call it.
pub type Binary = extern "C" fn(f64, f64) -> f64;

/// Functions of one argument by name.
pub const UNARY: &[(&str, Unary)] = &[
    ("exp", exp),
    ("expm1", expm1),
    ("log", log),
    ("log1p", log1p),
    ("tanh", tanh),
    ("erf", erf),
];
/// Functions of two arguments by name.
pub const BINARY: &[(&str, Binary)] = &[("pow", pow)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_come_out_to_the_bit() {
        // One unit in the last place above the true value, and so everywhere.
        assert_eq!(exp(1.0).to_bits(), std::f64::consts::E.to_bits() + 1);
        assert_eq!(log(1.0).to_bits(), 0);
        assert_eq!(tanh(0.0).to_bits(), 0);
        assert_eq!(pow(2.0, 10.0).to_bits(), 1024.0_f64.to_bits());
        assert!(log(-1.0).is_nan());
        assert_eq!(log(0.0), f64::NEG_INFINITY);
        assert_eq!(erf(f64::INFINITY).to_bits(), 1.0_f64.to_bits());
    }
}
