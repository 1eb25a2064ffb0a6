//! What a step costs, and the time that a device should take for it: a roofline over rates that were measured there.
//!
//! A step takes at least as long as its slowest resource: reading weights and state from memory, moving activations
//! through the caches, arithmetic, or starting and ending a step at all. Deliberately absent: measuring (the backend's)
//! and any knowledge of kernels.

use std::ops::Add;

use crate::StepReport;

/// What a step multiplies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Math {
    /// 32-bit floats.
    #[default]
    Float,
    /// Pairs of bfloat16, summed in 32-bit floats.
    Bf16,
    /// 8-bit integers.
    Int8,
    /// Pairs of 16-bit integers.
    Int16,
}

/// What attention does for each position that a row attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attends {
    /// Bytes of a position's keys and values, read once for all rows of a sequence.
    pub bytes: usize,
    /// Multiply-adds for each row and position.
    pub multiply_adds: usize,
    /// Positions that a row sees at most.
    pub window: Option<usize>,
}

impl Attends {
    /// Positions that rows `past..past + len` of a sequence see: those that are read at all, and the sum over rows.
    fn positions(&self, past: usize, len: usize) -> (f64, f64) {
        let window = self.window.unwrap_or(usize::MAX);
        let read = (past + len).min(window.saturating_add(len).saturating_sub(1));
        let seen = (past + 1..=past + len).map(|positions| positions.min(window)).sum::<usize>();
        (read as f64, seen as f64)
    }
}

/// What a step of one run moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes of weights, keys and values.
    pub memory_bytes: f64,
    /// Bytes of activations, read and written.
    pub activation_bytes: f64,
    /// Multiply-adds.
    pub multiply_adds: f64,
    /// What they are done in.
    pub math: Math,
}

/// Both together; the arithmetic is that of the larger part.
impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes + other.memory_bytes,
            activation_bytes: self.activation_bytes + other.activation_bytes,
            multiply_adds: self.multiply_adds + other.multiply_adds,
            math: if other.multiply_adds > self.multiply_adds { other.math } else { self.math },
        }
    }
}

pub(crate) fn of(step: &StepReport, seqs: &[(usize, usize)]) -> Cost {
    let mut cost = Cost {
        memory_bytes: step.weight_bytes as f64,
        activation_bytes: step.activation_bytes as f64,
        multiply_adds: step.multiply_adds as f64,
        math: step.math,
    };
    for (attends, &(past, len)) in step.attends.iter().flat_map(|a| seqs.iter().map(move |seq| (a, seq))) {
        let (read, seen) = attends.positions(past, len);
        cost.memory_bytes += read * attends.bytes as f64;
        cost.multiply_adds += seen * attends.multiply_adds as f64;
    }
    cost
}

/// What a device does at best, in units a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Bytes of weights and state that are read, at the working set of a whole run.
    pub memory: f64,
    /// Bytes of activations: for each cache, nearest first, the bytes that it holds and its rate.
    pub caches: Vec<(f64, f64)>,
    /// Operations on 32-bit floats; a multiply-add is two.
    pub float: f64,
    /// Operations on bfloat16; a multiply-add is two. That of 32-bit floats where there are no instructions for it.
    pub bf16: f64,
    /// Operations on 8-bit integers; a multiply-add is two.
    pub int8: f64,
    /// Operations on 16-bit integers; a multiply-add is two.
    pub int16: f64,
    /// Steps that do nothing.
    pub steps: f64,
}

/// What holds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ceiling {
    /// Reading weights, keys and values.
    Memory,
    /// Moving activations.
    Cache,
    /// Multiplying 32-bit floats.
    Float,
    /// Multiplying bfloat16.
    Bf16,
    /// Multiplying 8-bit integers.
    Int8,
    /// Multiplying 16-bit integers.
    Int16,
    /// Starting a step and waiting for all workers.
    Step,
}

impl Ceiling {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cache => "cache",
            Self::Float => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Step => "step",
        }
    }
}

impl Rates {
    /// The least seconds that a step can take, and what holds it to them.
    pub fn least(&self, cost: &Cost) -> (f64, Ceiling) {
        let (rate, arithmetic) = match cost.math {
            Math::Float => (self.float, Ceiling::Float),
            Math::Bf16 => (self.bf16, Ceiling::Bf16),
            Math::Int8 => (self.int8, Ceiling::Int8),
            Math::Int16 => (self.int16, Ceiling::Int16),
        };
        let claims = [
            (1.0 / self.steps, Ceiling::Step),
            (cost.memory_bytes / self.memory, Ceiling::Memory),
            (cost.activation_bytes / self.cache(cost.activation_bytes), Ceiling::Cache),
            (2.0 * cost.multiply_adds / rate, arithmetic),
        ];
        claims
            .into_iter()
            .fold((0.0, Ceiling::Step), |most, claim| if claim.0 > most.0 { claim } else { most })
    }

    /// The rate of the nearest cache that holds so many bytes, or of memory.
    fn cache(&self, bytes: f64) -> f64 {
        self.caches.iter().find(|(size, _)| bytes <= *size).map_or(self.memory, |(_, rate)| *rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_resource_holds_a_step() {
        let caches = vec![(150.0, 200.0), (1000.0, 100.0)];
        let rates =
            Rates { memory: 10.0, caches, float: 20.0, bf16: 40.0, int8: 200.0, int16: 100.0, steps: 4.0 };
        let check = |memory, activations, products, math, expected| {
            let cost =
                Cost { memory_bytes: memory, activation_bytes: activations, multiply_adds: products, math };
            assert_eq!(rates.least(&cost), expected);
        };
        check(0.0, 0.0, 0.0, Math::Float, (0.25, Ceiling::Step));
        check(20.0, 100.0, 10.0, Math::Float, (2.0, Ceiling::Memory));
        check(20.0, 300.0, 10.0, Math::Float, (3.0, Ceiling::Cache));
        check(0.0, 100.0, 0.0, Math::Float, (0.5, Ceiling::Cache));
        check(0.0, 2000.0, 0.0, Math::Float, (200.0, Ceiling::Cache));
        check(20.0, 100.0, 40.0, Math::Float, (4.0, Ceiling::Float));
        check(20.0, 100.0, 100.0, Math::Bf16, (5.0, Ceiling::Bf16));
        check(20.0, 100.0, 500.0, Math::Int8, (5.0, Ceiling::Int8));
        check(20.0, 100.0, 250.0, Math::Int16, (5.0, Ceiling::Int16));
    }

    #[test]
    fn attention_costs_what_its_rows_see() {
        let check = |window, past, len, expected| {
            let attends = Attends { bytes: 1, multiply_adds: 1, window };
            assert_eq!(attends.positions(past, len), expected, "{window:?} {past} {len}");
        };
        check(None, 0, 1, (1.0, 1.0));
        check(None, 9, 1, (10.0, 10.0));
        check(None, 0, 4, (4.0, 10.0));
        check(None, 2, 3, (5.0, 12.0));
        check(Some(4), 9, 1, (4.0, 4.0));
        check(Some(4), 9, 2, (5.0, 8.0));
        check(Some(4), 2, 3, (5.0, 11.0));
    }
}
