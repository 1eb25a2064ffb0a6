//! Packed weights of a session: each constant is packed once for all plans that read it alike, in the background and in
//! the order in which steps want it, so that the first steps run while later ones wait.
//!
//! Deliberately absent: how weights are packed, which kernels say ([`Packing`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use kinglet_graph::{ExecError, Graph};
use kinglet_kernels::matmul::{PackPlan, PackedMatrix};
use kinglet_kernels::nd::{NdError, Packed, Packing, fingerprint};
use kinglet_simd::Level;
use kinglet_tensor::{Bytes, Tensor};

use crate::CpuBackend;
use crate::pack_file::{self, Checked, PackFile, PackStore, check, copy_checked};
use crate::reading::Reading;
use crate::weights::release;

/// Bytes of packed weights from which on they are copied out of the file that kept them.
const COPIED: usize = 2 << 20;
/// Bytes of a constant from which on plans share it.
const SMALL: usize = 4096;

/// The packed weights of a session.
pub(crate) struct Bank {
    /// First byte and length of the model's own constants, which live as long as the session.
    own: HashSet<(usize, usize)>,
    known: Mutex<Known>,
    level: Level,
    threads: usize,
    /// Where packed floats are kept for the next load.
    store: Option<Arc<dyn PackStore>>,
    running: Mutex<Vec<Running>>,
}

#[derive(Default)]
struct Known {
    /// Constants that were made of the model's own, by a check of their content.
    made: HashMap<u64, Vec<Tensor>>,
    floats: HashMap<Key, (String, Packed)>,
    matrices: HashMap<(Source, PackPlan), PackedMatrix>,
}

/// Whose content it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// One of the model's own constants, by its place.
    Own(usize, usize),
    /// Any other, by a check of its content.
    Made(u64, usize),
}

/// All that packed floats depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    reading: Reading,
    packing: Packing,
}

/// Weights that are to be packed.
struct Job {
    key: Key,
    tensor: Tensor,
    packed: Packed,
    /// What an earlier load kept of it.
    kept: Option<Checked>,
}

/// What the steps of one plan want, in their order.
pub(crate) struct Wanted<'a> {
    bank: &'a Bank,
    jobs: Vec<Job>,
}

impl Bank {
    /// For the constants of a model, packed by the backend's threads and kept in its store.
    pub(crate) fn new(graph: &Graph, backend: &CpuBackend) -> Self {
        let weights = (0..graph.values().len()).filter_map(|i| match &graph.values()[i].def {
            kinglet_graph::Def::Weight(tensor) => Some(place(tensor)),
            _ => None,
        });
        let CpuBackend { level, threads, packs: store, .. } = backend.clone();
        let (known, running) = (Mutex::default(), Mutex::default());
        Self { own: weights.collect(), known, level, threads, store, running }
    }

    /// Lets a bound graph read the constants that were made for earlier plans instead of equal ones of its own.
    pub(crate) fn share(&self, graph: &mut Graph) {
        let mut known = self.known();
        graph.share_weights(|tensor| {
            let data = tensor.data();
            if data.len() < SMALL || self.own.contains(&place(tensor)) {
                return None;
            }
            let like = |other: &&Tensor| {
                let types = (other.dtype(), other.shape(), other.name());
                types == (tensor.dtype(), tensor.shape(), tensor.name()) && other.data() == data
            };
            let equal = known.made.entry(check(data)).or_default();
            let found = equal.iter().find(like).cloned();
            if found.is_none() {
                equal.push(tensor.clone());
            }
            found
        });
    }

    /// Begins to gather what a plan wants.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { bank: self, jobs: Vec::new() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self, tensor: &Tensor) -> Source {
        let (at, bytes) = place(tensor);
        if self.own.contains(&(at, bytes)) {
            Source::Own(at, bytes)
        } else {
            Source::Made(check(tensor.data()), bytes)
        }
    }

    /// The packed form of a matrix, if another plan has packed it.
    pub(crate) fn matrix(&self, tensor: &Tensor, plan: PackPlan) -> Option<PackedMatrix> {
        self.known().matrices.get(&(self.source(tensor), plan)).cloned()
    }

    /// Keeps a packed matrix for other plans.
    pub(crate) fn keep(&self, tensor: &Tensor, matrix: PackedMatrix) {
        self.known().matrices.insert((self.source(tensor), *matrix.plan()), matrix);
    }

    /// Bytes of all packed weights, those included that are still being packed.
    pub(crate) fn bytes(&self) -> usize {
        let known = self.known();
        let floats: usize = known.floats.values().map(|(_, packed)| packed.floats()).sum();
        let matrices: usize = known.matrices.values().map(|matrix| matrix.data().len()).sum();
        floats * size_of::<f32>() + matrices
    }

    /// Waits until everything is packed; the first error, if any.
    pub(crate) fn wait(&self) -> Result<(), ExecError> {
        let all: Vec<(String, Packed)> = self.known().floats.values().cloned().collect();
        all.into_iter().try_for_each(|(name, packed)| {
            packed.wait().map_err(|e| ExecError::Node { node: name, reason: e.to_string() })
        })
    }

    fn pack(&self, batch: Arc<Batch>) {
        let work = || {
            let batch = batch.clone();
            Builder::new().name("kinglet-pack".into()).spawn(move || batch.work()).ok()
        };
        let threads: Vec<_> = (0..self.threads.min(batch.jobs.len())).filter_map(|_| work()).collect();
        if threads.is_empty() {
            // Where there are no threads, everything is packed before the first run.
            batch.work();
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(Running { batch, threads });
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        running.iter().for_each(|running| running.batch.stop());
        let threads = running.drain(..).flat_map(|running| running.threads);
        threads.for_each(|thread| drop(thread.join()));
    }
}

impl Wanted<'_> {
    /// The constant, read and packed like this; shared with all that want the same. Fails when it has not the floats that
    /// are to be packed.
    pub(crate) fn packed(
        &mut self,
        tensor: &Tensor,
        reading: Reading,
        packing: Packing,
    ) -> Result<Packed, String> {
        let fits =
            reading.takes(tensor.dtype()) && reading.count(tensor.elements()) == Some(packing.weights());
        if !fits {
            return Err(format!("{}{:?} is not what {packing:?} takes", tensor.dtype(), tensor.shape()));
        }
        let key = Key { source: self.bank.source(tensor), reading, packing };
        if let Some((_, packed)) = self.bank.known().floats.get(&key) {
            return Ok(packed.clone());
        }
        if let Some(job) = self.jobs.iter().find(|job| job.key == key) {
            return Ok(job.packed.clone());
        }
        let packed = Packed::pending(packing.floats());
        self.jobs.push(Job { key, tensor: tensor.clone(), packed: packed.clone(), kept: None });
        Ok(packed)
    }

    /// Starts to pack.
    pub(crate) fn start(self) {
        if self.jobs.is_empty() {
            return;
        }
        let named = |job: &Job| (job.key.clone(), (job.tensor.name().to_owned(), job.packed.clone()));
        self.bank.known().floats.extend(self.jobs.iter().map(named));
        self.bank.pack(Arc::new(Batch::new(self.jobs, self.bank)));
    }
}

/// Threads that pack.
struct Running {
    batch: Arc<Batch>,
    threads: Vec<JoinHandle<()>>,
}

/// Jobs that some threads share.
struct Batch {
    jobs: Vec<Job>,
    next: AtomicUsize,
    /// The next one whose kept weights are to be copied, once all are there.
    copied: AtomicUsize,
    /// Jobs that are not done, and whether some were not kept, or damaged.
    left: AtomicUsize,
    anew: AtomicBool,
    /// Who keeps the packed floats, and under which description.
    keep: Option<(Arc<dyn PackStore>, Vec<u8>)>,
}

impl Batch {
    /// Takes what the bank's store has of these jobs.
    fn new(mut jobs: Vec<Job>, bank: &Bank) -> Self {
        let keep = bank.store.clone().map(|store| (store, describe(&jobs, bank.level)));
        let sizes: Vec<usize> = jobs.iter().map(|job| job.packed.floats() * size_of::<f32>()).collect();
        let file = keep.as_ref().and_then(|(store, description)| store.load(description));
        let found =
            file.zip(keep.as_ref()).and_then(|(file, (_, text))| pack_file::read(&file, text, &sizes));
        for (job, checked) in jobs.iter_mut().zip(found.into_iter().flatten()) {
            job.kept = Some(checked);
        }
        let left = AtomicUsize::new(jobs.len());
        Self {
            jobs,
            next: AtomicUsize::new(0),
            copied: AtomicUsize::new(0),
            left,
            anew: AtomicBool::new(false),
            keep,
        }
    }

    /// Packs until nothing is left; the last one gives what was packed anew to the store. Then copies what was kept.
    fn work(&self) {
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !job.run() {
                self.anew.store(true, Ordering::Relaxed);
            }
            if self.left.fetch_sub(1, Ordering::AcqRel) == 1 && self.anew.load(Ordering::Relaxed) {
                self.keep();
            }
        }
        while let Some(job) = self.jobs.get(self.copied.fetch_add(1, Ordering::Relaxed)) {
            job.copy();
        }
    }

    fn keep(&self) {
        let Some((store, description)) = &self.keep else { return };
        let all: Option<Vec<Bytes>> = self.jobs.iter().map(|job| job.packed.bytes().cloned()).collect();
        if let Some(all) = all {
            store.keep(description, PackFile::new(description.clone(), all));
        }
    }

    /// Lets nobody begin another job.
    fn stop(&self) {
        self.next.store(self.jobs.len(), Ordering::Relaxed);
        self.copied.store(self.jobs.len(), Ordering::Relaxed);
    }
}

impl Job {
    /// Packs the weights, or takes what was kept of them; says whether it could.
    fn run(&self) -> bool {
        let promise = Promise(&self.packed);
        let kept = self.kept.as_ref().filter(|(data, sum)| check(data) == *sum);
        let pack = || self.key.packing.pack(&self.key.reading.values(&self.tensor));
        promise.0.fill(kept.map_or_else(pack, |(data, _)| Ok(data.clone())));
        release(self.tensor.data());
        kept.is_some()
    }

    /// Moves what was kept out of its file, where that gains: products read large pages faster than a file's small ones,
    /// ViT-B/16 by a sixth.
    fn copy(&self) {
        let Some((data, sum)) = self.kept.as_ref().filter(|(data, _)| data.len() >= COPIED) else { return };
        // What was damaged has been packed anew; without memory for a copy it is read where it is.
        if let Some((copy, _)) = copy_checked(data).ok().filter(|(_, found)| found == sum) {
            self.packed.move_to(copy.into());
        }
        release(data);
    }
}

/// Steps that wait learn of it when nothing comes.
struct Promise<'a>(&'a Packed);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.fill(Err(NdError { what: "packing", reason: "it was given up".into() }));
    }
}

/// All that the packed floats depend on.
fn describe(jobs: &[Job], level: Level) -> Vec<u8> {
    let done = |job: &Job| {
        let content = if let Source::Made(content, _) = job.key.source { content } else { 0 };
        check(format!("{content} {:?} {:?}", job.key.reading, job.key.packing).as_bytes())
    };
    let tensors = jobs.iter().map(|job| (&job.tensor, done(job)));
    pack_file::describe_floats(tensors, fingerprint(level))
}

fn place(tensor: &Tensor) -> (usize, usize) {
    (tensor.data().as_ptr() as usize, tensor.data().len())
}

#[cfg(test)]
mod tests;
