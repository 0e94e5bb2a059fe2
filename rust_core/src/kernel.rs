//! Kernels: compiled functions from outside that compute an alpha's value, called by address.
//!
//! Why: some signals cannot be written as an expression; research compiles one function, and its
//! loops and the engine run the same machine code.
//!
//! Invariants:
//! 1. A kernel sees the current features it declared, its parameters, its own state and the time;
//!    looking ahead cannot be written.
//! 2. Its state is zeroed and `is_reset` is 1 at the first call, and at the first call after the
//!    market started over; nothing else resets it.
//! 3. A status that is not 0, and a value that is not finite, is NaN with a reason code.
//! 4. A call allocates nothing, takes no lock and holds no GIL.
//! 5. An engine whose config names a kernel that was not given, or another one, does not exist.
//!
//! It compiles nothing and checks no machine code: `hft_platform.kernels` refuses whatever could
//! allocate, raise, leave its arrays or call out before an address is handed over. Operator's page:
//! `docs/kernels.md`.

use crate::features::{FEATURES, feature_id};
use crate::reason::ReasonCode;

/// Numbers of state that one kernel may keep.
pub const STATE_COUNT_MAX: usize = 4_096;
/// Parameters of one kernel.
pub const PARAMETER_COUNT_MAX: usize = 64;
/// Bytes of a kernel's text.
pub const SOURCE_BYTES_MAX: usize = 16_384;
/// Bytes of the words on what compiled it.
pub const COMPILER_BYTES_MAX: usize = 256;
/// Kernels of one engine.
pub const KERNEL_COUNT_MAX: usize = 64;

/// `kernel(features, parameters, state, out, now_ns, is_reset) -> status`.
pub type KernelFunction =
    unsafe extern "C" fn(*const f64, *const f64, *mut f64, *mut f64, i64, i64) -> i64;

/// Why a kernel cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The config names it, nobody gave it.
    #[error("kernel {id} ({sha256}) was not given")]
    Missing {
        /// Name in the config.
        id: String,
        /// Hash in the config.
        sha256: String,
    },
    /// Another one of that name was given.
    #[error("kernel {id} was given as {given}, the config names {named}")]
    Mismatch {
        /// Name.
        id: String,
        /// Hash of what was given.
        given: String,
        /// Hash in the config.
        named: String,
    },
    /// What was given cannot be one.
    #[error("kernel {id}: {what}")]
    Malformed {
        /// Name.
        id: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl KernelError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Missing { .. } => ReasonCode::KernelMissing,
            Self::Mismatch { .. } => ReasonCode::KernelMismatch,
            Self::Malformed { .. } => ReasonCode::KernelMalformed,
        }
    }
}

/// What a kernel was compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelShape {
    /// Its name.
    pub id: String,
    /// Hash of its source, sizes, compiler and CPU target, in hex.
    pub sha256: String,
    /// Features it reads, in its order.
    pub features: Vec<String>,
    /// Parameters it reads, in its order.
    pub parameters: Vec<String>,
    /// Numbers of state it keeps.
    pub state_count: usize,
}

/// One compiled kernel: who it is and where it lies.
#[derive(Debug, Clone)]
struct Loaded {
    shape: KernelShape,
    function: KernelFunction,
}

/// The kernels that may be called in this process.
#[derive(Debug, Clone, Default)]
pub struct Kernels {
    loaded: Vec<Loaded>,
}

impl Kernels {
    /// Adds a kernel.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] for an address that is none, or beyond [`KERNEL_COUNT_MAX`].
    ///
    /// # Safety
    /// `address` is the entry of machine code with the type [`KernelFunction`] that stays where it
    /// is for the rest of the process, and that, called with arrays of the sizes of `shape`, reads
    /// and writes inside them only, does not unwind and comes back.
    #[allow(
        unsafe_code,
        reason = "turns an address into a function; the promise is the caller's"
    )]
    pub unsafe fn add(&mut self, shape: KernelShape, address: usize) -> Result<(), KernelError> {
        let malformed = |what| KernelError::Malformed {
            id: shape.id.clone(),
            what,
        };
        if address == 0 {
            return Err(malformed("its address was 0"));
        }
        if self.loaded.len() >= KERNEL_COUNT_MAX {
            return Err(malformed("an engine takes at most 64 kernels"));
        }
        let pointer = address as *const ();
        // SAFETY: the caller promises that code of this type lies there for good, and the address
        // is not null, which a function pointer must not be.
        let function = unsafe { std::mem::transmute::<*const (), KernelFunction>(pointer) };
        self.loaded.push(Loaded { shape, function });
        Ok(())
    }

    /// The kernel that a config names, ready to run.
    ///
    /// # Errors
    /// [`KernelError`] when it was not given, or another one was.
    pub(crate) fn start(&self, plan: &KernelPlan<'_>) -> Result<Kernel, KernelError> {
        let of_name = || self.loaded.iter().filter(|one| one.shape.id == plan.id);
        let Some(first) = of_name().next() else {
            return Err(KernelError::Missing {
                id: plan.id.to_owned(),
                sha256: plan.sha256.to_owned(),
            });
        };
        let Some(found) = of_name().find(|one| one.shape.sha256 == plan.sha256) else {
            return Err(KernelError::Mismatch {
                id: plan.id.to_owned(),
                given: first.shape.sha256.clone(),
                named: plan.sha256.to_owned(),
            });
        };
        let is_same = found.shape.features == plan.features
            && found.shape.parameters == plan.parameter_names
            && found.shape.state_count == plan.state_count
            && plan.parameters.len() == plan.parameter_names.len();
        if !is_same {
            return Err(KernelError::Malformed {
                id: plan.id.to_owned(),
                what: "it was compiled for other features, parameters or state than the config's",
            });
        }
        let places: Option<Vec<usize>> = plan
            .features
            .iter()
            .map(|name| feature_id(name).map(usize::from))
            .collect();
        let Some(places) = places else {
            return Err(KernelError::Malformed {
                id: plan.id.to_owned(),
                what: "it reads a feature that does not exist",
            });
        };
        Ok(Kernel {
            function: found.function,
            features: vec![f64::NAN; places.len()].into_boxed_slice(),
            places: places.into_boxed_slice(),
            parameters: plan.parameters.clone().into_boxed_slice(),
            state: vec![0.0; plan.state_count].into_boxed_slice(),
            sign: plan.sign,
            is_fresh: true,
        })
    }
}

/// What a config says about a kernel, checked by `validate`.
#[derive(Debug, Clone)]
pub(crate) struct KernelPlan<'a> {
    pub(crate) id: &'a str,
    pub(crate) sha256: &'a str,
    pub(crate) features: &'a [String],
    pub(crate) parameter_names: &'a [String],
    /// Their values, in this order.
    pub(crate) parameters: Vec<f64>,
    pub(crate) state_count: usize,
    /// +1 or -1.
    pub(crate) sign: f64,
}

/// A kernel at work: the function with its arrays.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    function: KernelFunction,
    /// Places of its features among [`FEATURES`].
    places: Box<[usize]>,
    features: Box<[f64]>,
    parameters: Box<[f64]>,
    state: Box<[f64]>,
    sign: f64,
    is_fresh: bool,
}

impl Kernel {
    /// Its value for the current features.
    ///
    /// # Errors
    /// [`ReasonCode::KernelStatus`] or [`ReasonCode::KernelNotFinite`]: there is no value.
    #[allow(unsafe_code, reason = "the one call of code from outside")]
    pub(crate) fn evaluate(
        &mut self,
        values: &[f64; FEATURES.len()],
        now_ns: i64,
    ) -> Result<f64, ReasonCode> {
        for (feature, place) in self.features.iter_mut().zip(&self.places) {
            *feature = values[*place];
        }
        let is_reset = i64::from(std::mem::take(&mut self.is_fresh));
        let mut value = f64::NAN;
        // SAFETY: the function keeps the promise of `Kernels::add`; `start` gave the arrays the
        // sizes of its shape; they live through the call, are aligned, and are borrowed by nobody
        // else; `value` is the one number it writes.
        let status = unsafe {
            (self.function)(
                self.features.as_ptr(),
                self.parameters.as_ptr(),
                self.state.as_mut_ptr(),
                &raw mut value,
                now_ns,
                is_reset,
            )
        };
        if status != 0 {
            return Err(ReasonCode::KernelStatus);
        }
        if value.is_finite() {
            Ok(self.sign * value)
        } else {
            Err(ReasonCode::KernelNotFinite)
        }
    }

    /// Forgets everything that was seen.
    pub(crate) fn reset(&mut self) {
        self.state.fill(0.0);
        self.is_fresh = true;
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "tests stop at the first surprise and call a kernel of their own"
)]
mod tests {
    use super::*;

    /// A mean of what came since the reset; says 3 without a feature, and divides by zero at will.
    unsafe extern "C" fn mean(
        features: *const f64,
        parameters: *const f64,
        state: *mut f64,
        out: *mut f64,
        now_ns: i64,
        is_reset: i64,
    ) -> i64 {
        // SAFETY: the tests give arrays of these sizes.
        unsafe {
            if (*features).is_nan() {
                return 3;
            }
            if is_reset == 1 {
                *state.add(1) = now_ns as f64;
            }
            *state += *features;
            *state.add(2) += 1.0;
            *out = *state / *state.add(2) * *parameters;
        }
        0
    }

    fn sha() -> String {
        "a".repeat(64)
    }

    fn shape() -> KernelShape {
        KernelShape {
            id: "mean".to_owned(),
            sha256: sha(),
            features: vec!["imbalance_l1".to_owned()],
            parameters: vec!["gain".to_owned()],
            state_count: 3,
        }
    }

    fn loaded() -> Kernels {
        let mut kernels = Kernels::default();
        // SAFETY: `mean` has the type, keeps to these sizes and lives for good.
        unsafe { kernels.add(shape(), mean as *const () as usize) }.unwrap();
        kernels
    }

    fn plan(shape: &KernelShape) -> KernelPlan<'_> {
        KernelPlan {
            id: &shape.id,
            sha256: &shape.sha256,
            features: &shape.features,
            parameter_names: &shape.parameters,
            parameters: vec![2.0; shape.parameters.len()],
            state_count: shape.state_count,
            sign: 1.0,
        }
    }

    #[test]
    fn it_is_called_with_its_features_and_forgets_at_a_reset() {
        let mut kernel = loaded().start(&plan(&shape())).unwrap();
        let mut values = [f64::NAN; FEATURES.len()];
        assert_eq!(
            kernel.evaluate(&values, 5),
            Err(ReasonCode::KernelStatus),
            "status 3"
        );
        values[usize::from(feature_id("imbalance_l1").unwrap())] = 0.25;
        assert_eq!(kernel.evaluate(&values, 6), Ok(0.5));
        values[usize::from(feature_id("imbalance_l1").unwrap())] = 0.75;
        assert_eq!(kernel.evaluate(&values, 7), Ok(1.0));
        assert_eq!(kernel.state[1], 0.0, "the first call was the reset");
        kernel.reset();
        assert_eq!(kernel.evaluate(&values, 8), Ok(1.5));
        assert_eq!(kernel.state[1], 8.0);
        kernel.sign = -1.0;
        kernel.reset();
        assert_eq!(kernel.evaluate(&values, 8), Ok(-1.5));
        values[usize::from(feature_id("imbalance_l1").unwrap())] = f64::INFINITY;
        assert_eq!(
            kernel.evaluate(&values, 9),
            Err(ReasonCode::KernelNotFinite)
        );
    }

    #[test]
    fn a_kernel_that_was_not_given_and_another_one_are_refused() {
        let start = |kernels: &Kernels, shape: &KernelShape| {
            let started = kernels.start(&plan(shape)).map(drop);
            started.map_err(|error| (error.code(), error.to_string()))
        };
        let code = |started: Result<(), (ReasonCode, String)>| started.map_err(|error| error.0);
        assert_eq!(start(&loaded(), &shape()), Ok(()));
        assert_eq!(
            code(start(&Kernels::default(), &shape())),
            Err(ReasonCode::KernelMissing)
        );
        let other = KernelShape {
            sha256: "b".repeat(64),
            ..shape()
        };
        let (mismatch, message) = start(&loaded(), &other).unwrap_err();
        assert_eq!(mismatch, ReasonCode::KernelMismatch);
        assert!(message.contains(&other.sha256), "{message}");
        // The hash alone is not trusted with the size of an array.
        let smaller = KernelShape {
            state_count: 2,
            ..shape()
        };
        let renamed = KernelShape {
            features: vec!["spread".to_owned()],
            ..shape()
        };
        let without = KernelShape {
            parameters: Vec::new(),
            ..shape()
        };
        for changed in [smaller, renamed, without] {
            assert_eq!(
                code(start(&loaded(), &changed)),
                Err(ReasonCode::KernelMalformed),
                "{changed:?}"
            );
        }
        // SAFETY: a null address is refused before it becomes a function.
        let null = unsafe { Kernels::default().add(shape(), 0) };
        assert_eq!(
            null.map_err(|error| error.code()),
            Err(ReasonCode::KernelMalformed)
        );
    }
}
