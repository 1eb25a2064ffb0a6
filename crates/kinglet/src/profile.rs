//! Where the time of runs goes, step by step, each beside the least time that its costs allow on this device.
//!
//! The clock is read at the end of each step on the thread that runs, so that the steps' times add up to the run's.

use std::time::Instant;

use kinglet_graph::cost::{Ceiling, Cost, Rates};
use kinglet_graph::{PlanReport, Profiler};

/// One run of a plan, timed.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its sequences: tokens before, and tokens of the run.
    pub seqs: Vec<(usize, usize)>,
    /// Seconds from the call to its end, by a clock of its own.
    pub wall: f64,
    /// Seconds from the call to the first step, then to the end of each.
    pub marks: Vec<f64>,
}

impl Run {
    /// Begin and end of each step, in seconds from the call.
    pub fn steps(&self) -> impl Iterator<Item = (f64, f64)> {
        self.marks.windows(2).map(|pair| (pair[0], pair[1]))
    }
}

/// Times the steps of a run.
pub(crate) struct Stopwatch {
    called: Instant,
    marks: Vec<Instant>,
}

impl Stopwatch {
    /// The call begins.
    pub(crate) fn start() -> Self {
        Self { marks: Vec::with_capacity(1024), called: Instant::now() }
    }

    /// The call has ended.
    pub(crate) fn stop(self, seqs: Vec<(usize, usize)>) -> Run {
        let wall = self.called.elapsed().as_secs_f64();
        let marks = self.marks.iter().map(|mark| mark.duration_since(self.called).as_secs_f64()).collect();
        Run { seqs, wall, marks }
    }
}

impl Profiler for Stopwatch {
    fn begin(&mut self) {
        self.marks.push(Instant::now());
    }

    fn step(&mut self, _: usize) {
        self.marks.push(Instant::now());
    }
}

/// The steps of several runs of one plan, summed up.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The steps in running order.
    pub steps: Vec<Entry>,
    /// Seconds of all runs.
    pub wall: f64,
    /// Number of runs.
    pub runs: usize,
    /// Whether names say nothing of a step's kind, as in graphs that were imported.
    pub by_kernel: bool,
}

/// A step, or several that are alike, over all runs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value it makes; for several steps, how many they are.
    pub name: String,
    /// Kernel and formats.
    pub kernel: String,
    /// Number of steps.
    pub count: usize,
    /// Seconds, over all runs.
    pub seconds: f64,
    /// The least seconds that its costs allow, over all runs.
    pub least: f64,
    /// What holds it to them.
    pub ceiling: Ceiling,
    /// What it moves and computes, over all runs.
    pub cost: Cost,
}

impl Entry {
    /// Share of the ceiling that it reached.
    pub fn share(&self) -> f64 {
        if self.seconds > 0.0 { self.least / self.seconds } else { 0.0 }
    }
}

impl Profile {
    /// Sums up runs of the plan that `report` tells, for each run's sequences, by what the device can do.
    pub fn new<E>(
        runs: &[Run],
        rates: &Rates,
        report: impl Fn(&[(usize, usize)]) -> Result<PlanReport, E>,
    ) -> Result<Self, E> {
        let mut steps: Vec<Entry> = Vec::new();
        let mut known: Option<(Vec<usize>, PlanReport)> = None;
        for run in runs {
            let shape: Vec<usize> = run.seqs.iter().map(|(_, len)| *len).collect();
            if known.as_ref().is_none_or(|(of, _)| *of != shape) {
                known = Some((shape, report(&run.seqs)?));
            }
            let Some((_, plan)) = &known else { continue };
            for (index, (step, (begin, end))) in plan.steps.iter().zip(run.steps()).enumerate() {
                let cost = step.cost(&run.seqs);
                let (least, ceiling) = rates.least(&cost);
                let (name, kernel) = (step.name.clone(), step.kernel.clone());
                let one = Entry { name, kernel, count: 1, seconds: end - begin, least, ceiling, cost };
                match steps.get_mut(index) {
                    Some(entry) => entry.add(&one),
                    None => steps.push(one),
                }
            }
        }
        Ok(Self { steps, wall: runs.iter().map(|run| run.wall).sum(), runs: runs.len(), by_kernel: false })
    }

    /// Seconds of all steps: the runs' time but for their beginning and end.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// The least seconds of all steps.
    pub fn least(&self) -> f64 {
        self.steps.iter().map(|step| step.least).sum()
    }

    /// Steps of one kernel and, unless names say nothing, of one place in their block together; those that take longest
    /// first.
    pub fn kinds(&self) -> Vec<Entry> {
        let mut kinds: Vec<Entry> = Vec::new();
        for step in &self.steps {
            let name = if self.by_kernel { "" } else { place(&step.name) };
            match kinds.iter_mut().find(|kind| kind.kernel == step.kernel && kind.name == name) {
                Some(kind) => {
                    kind.count += 1;
                    kind.add(step);
                }
                None => kinds.push(Entry { name: name.to_owned(), ..step.clone() }),
            }
        }
        kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        kinds
    }
}

impl Entry {
    /// Adds time and costs; what holds the longer one holds both.
    fn add(&mut self, other: &Entry) {
        if other.least > self.least {
            self.ceiling = other.ceiling;
        }
        self.seconds += other.seconds;
        self.least += other.least;
        self.cost = self.cost + other.cost;
    }
}

/// A value's name without the number of its block: `blk.3.ffn_up` is `ffn_up`.
pub fn place(name: &str) -> &str {
    block(name).map_or(name, |block| name.get(block.len() + 1..).unwrap_or(name))
}

/// The block of a value's name: `blk.3` of `blk.3.ffn_up`.
pub fn block(name: &str) -> Option<&str> {
    let (head, rest) = name.split_once('.')?;
    let (number, _) = rest.split_once('.')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    numbered.then(|| &name[..head.len() + 1 + number.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_graph::StepReport;
    use kinglet_graph::cost::Math;

    fn step(name: &str, kernel: &str, weight_bytes: usize) -> StepReport {
        StepReport {
            name: name.into(),
            kernel: kernel.into(),
            note: String::new(),
            weight_bytes,
            activation_bytes: 0,
            multiply_adds: 0,
            math: Math::Float,
            attends: None,
            outputs: Vec::new(),
        }
    }

    #[test]
    fn steps_add_up_over_runs_and_kinds_over_blocks() {
        let rates = Rates {
            memory: 100.0,
            caches: Vec::new(),
            float: 1.0,
            bf16: 1.0,
            int8: 1.0,
            int16: 1.0,
            steps: 10.0,
        };
        let plan = PlanReport {
            steps: vec![
                step("blk.0.up", "linear", 100),
                step("blk.1.up", "linear", 100),
                step("norm", "norm", 0),
            ],
            ..PlanReport::default()
        };
        let run = Run { seqs: vec![(0, 1)], wall: 6.5, marks: vec![0.5, 2.5, 5.5, 6.0] };
        let done = Profile::new(&[run.clone(), run], &rates, |_| Ok::<_, ()>(plan.clone())).expect("a plan");
        assert_eq!((done.runs, done.wall, done.seconds()), (2, 13.0, 11.0));
        assert!((done.least() - 4.2).abs() < 1e-9);
        let kinds = done.kinds();
        let told: Vec<_> = kinds.iter().map(|k| (k.name.as_str(), k.count, k.seconds, k.ceiling)).collect();
        assert_eq!(told, [("up", 2, 10.0, Ceiling::Memory), ("norm", 1, 1.0, Ceiling::Step)]);
        assert_eq!(kinds[0].cost.memory_bytes, 400.0);
        assert!((kinds[0].share() - 0.4).abs() < 1e-9);
    }

    #[test]
    fn names_lose_their_block() {
        for (name, rest, of) in [
            ("blk.12.ffn_up", "ffn_up", Some("blk.12")),
            ("output", "output", None),
            ("a.b.c", "a.b.c", None),
        ] {
            assert_eq!((place(name), block(name)), (rest, of));
        }
    }
}
