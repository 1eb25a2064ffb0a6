//! Speed of a graph model: whole runs on made-up inputs, and the steps of one.

use std::time::{Duration, Instant};

use kinglet_cpu::BufferStats;
use kinglet_graph::PlanReport;
use kinglet_tensor::Tensor;

use super::made_up::Inputs;
use super::model::{GraphModel, borrowed};
use crate::Error;
use crate::bench::Samples;
use crate::profile::{Run, Stopwatch};

/// Runs before any is timed.
const WARM_UP: usize = 5;

/// A model with inputs to run on.
pub struct GraphBench {
    model: GraphModel,
    feeds: Vec<Tensor>,
    planned: Duration,
}

impl GraphBench {
    /// Makes up inputs of `shapes` (by the input's name), and plans the model for them. A size that neither the model nor
    /// `shapes` say is `batch` for the outermost dimension and those of its name; for others it is the first of a few with which the
    /// model runs (if there is none, the error is that of the first).
    pub fn new(model: GraphModel, shapes: &[(String, Vec<usize>)], batch: usize) -> Result<Self, Error> {
        Self::fit(model, shapes, batch, true)
    }

    /// The same, of a model that is not run: for others, the size is the first for which it can be planned.
    pub fn planned_only(model: GraphModel, shapes: &[(String, Vec<usize>)]) -> Result<Self, Error> {
        Self::fit(model, shapes, 1, false)
    }

    fn fit(
        mut model: GraphModel,
        shapes: &[(String, Vec<usize>)],
        batch: usize,
        run: bool,
    ) -> Result<Self, Error> {
        let (graph, ports) = (model.session().graph().clone(), model.inputs().to_vec());
        let inputs = Inputs { graph: &graph, ports: &ports, given: shapes, batch };
        let sole = inputs.choices().len() == 1;
        let (feeds, planned) = inputs.first(|feeds| {
            let feeds = model.with_states(feeds);
            let started = Instant::now();
            model.session_mut().prepare(&borrowed(&feeds))?;
            model.session().wait()?;
            let planned = started.elapsed();
            if run && !sole {
                model.session_mut().run(&borrowed(&feeds))?;
                drop(model.handed_out()?);
            }
            Ok(planned)
        })?;
        let feeds = model.with_states(&feeds);
        Ok(Self { model, feeds, planned })
    }

    /// How long planning and packing took, for the inputs that were made up.
    pub fn planned(&self) -> Duration {
        self.planned
    }

    /// Milliseconds of `reps` runs after a few to warm up; `progress` hears of each.
    pub fn run(&mut self, reps: usize, mut progress: impl FnMut(usize, f64)) -> Result<Samples, Error> {
        let (model, feeds) = (&mut self.model, borrowed(&self.feeds));
        let mut times = Vec::with_capacity(reps);
        for rep in 0..WARM_UP + reps {
            let started = Instant::now();
            model.session_mut().run(&feeds)?;
            let ms = started.elapsed().as_secs_f64() * 1e3;
            drop(model.handed_out()?);
            if let Some(rep) = rep.checked_sub(WARM_UP) {
                times.push(ms);
                progress(rep, ms);
            }
        }
        Ok(Samples::new(times))
    }

    /// The run with the middle time of `reps` after a few to warm up, and where the buffers of all of them came from.
    pub fn profile(&mut self, reps: usize) -> Result<(Run, BufferStats), Error> {
        let (model, feeds) = (&mut self.model, borrowed(&self.feeds));
        for _ in 0..WARM_UP {
            model.session_mut().run(&feeds)?;
            drop(model.handed_out()?);
        }
        let before = model.session().buffers();
        let mut runs = Vec::with_capacity(reps);
        for _ in 0..reps.max(1) {
            let mut watch = Stopwatch::start();
            model.session_mut().run_with(&feeds, Some(&mut watch))?;
            runs.push(watch.stop(Vec::new()));
            drop(model.handed_out()?);
        }
        let buffers = model.session().buffers().since(&before);
        runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        Ok((runs.swap_remove((runs.len() - 1) / 2), buffers))
    }

    /// The plan, as it was run last or, before any run, as it was made.
    pub fn report(&self) -> PlanReport {
        self.model.session().report().unwrap_or_default()
    }

    /// The inputs.
    pub fn feeds(&self) -> &[Tensor] {
        &self.feeds
    }
}
