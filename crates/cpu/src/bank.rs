//! Packed weights of a session: each constant is packed once for all plans that read it alike, in the background and in
//! the order in which steps want it, so that the first steps run while later ones wait.
//!
//! Deliberately absent: how weights are packed, which kernels say ([`Packing`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use kinglet_graph::{ExecError, Graph};
use kinglet_kernels::matmul::{PackPlan, PackedMatrix};
use kinglet_kernels::nd::{NdError, Packed, Packing};
use kinglet_tensor::{DType, Tensor};

use crate::pack_file::check;
use crate::reading::Reading;
use crate::weights::release;

/// The packed weights of a session.
pub(crate) struct Bank {
    /// First byte and length of the model's own constants, which live as long as the session.
    own: HashSet<(usize, usize)>,
    known: Mutex<Known>,
    threads: usize,
    running: Mutex<Vec<Running>>,
}

#[derive(Default)]
struct Known {
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
}

/// What the steps of one plan want, in their order.
pub(crate) struct Wanted<'a> {
    bank: &'a Bank,
    jobs: Vec<Job>,
}

impl Bank {
    /// For the constants of a model, packed by so many threads.
    pub(crate) fn new(graph: &Graph, threads: usize) -> Self {
        let weights = (0..graph.values().len()).filter_map(|i| match &graph.values()[i].def {
            kinglet_graph::Def::Weight(tensor) => Some(place(tensor)),
            _ => None,
        });
        Self { own: weights.collect(), known: Mutex::default(), threads, running: Mutex::default() }
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
            tensor.dtype() == DType::F32 && reading.count(tensor.elements()) == Some(packing.weights());
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
        self.jobs.push(Job { key, tensor: tensor.clone(), packed: packed.clone() });
        Ok(packed)
    }

    /// Starts to pack.
    pub(crate) fn start(self) {
        if self.jobs.is_empty() {
            return;
        }
        let named = |job: &Job| (job.key.clone(), (job.tensor.name().to_owned(), job.packed.clone()));
        self.bank.known().floats.extend(self.jobs.iter().map(named));
        self.bank.pack(Arc::new(Batch { jobs: self.jobs, next: AtomicUsize::new(0) }));
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
}

impl Batch {
    /// Packs until nothing is left.
    fn work(&self) {
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            job.run();
        }
    }

    /// Lets nobody begin another job.
    fn stop(&self) {
        self.next.store(self.jobs.len(), Ordering::Relaxed);
    }
}

impl Job {
    fn run(&self) {
        let promise = Promise(&self.packed);
        let packed = self.key.reading.values(self.tensor.data());
        promise.0.fill(self.key.packing.pack(&packed));
        release(self.tensor.data());
    }
}

/// Steps that wait learn of it when nothing comes.
struct Promise<'a>(&'a Packed);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.fill(Err(NdError { what: "packing", reason: "it was given up".into() }));
    }
}

fn place(tensor: &Tensor) -> (usize, usize) {
    (tensor.data().as_ptr() as usize, tensor.data().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet_kernels::nd::{Act, Gemm, Order};
    use kinglet_simd::Level;

    fn tensor(name: &str, values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(name, DType::F32, vec![2, values.len() / 2], bytes.into()).expect("sizes agree")
    }

    fn packing(n: usize) -> Packing {
        Gemm::new(Level::SCALAR, (2, n), Order::Inputs, None, Act::NONE).expect("a product").packing()
    }

    #[test]
    fn equal_content_is_packed_once() {
        let bank = Bank::new(&Graph::default(), 2);
        let mut first = bank.wanted();
        let once = first.packed(&tensor("a", &[1.0, 2.0]), Reading::default(), packing(1)).expect("fits");
        let twice =
            first.packed(&tensor("a", &[1.0, 2.0]), Reading::times(&[2.0], 1), packing(1)).expect("fits");
        first.start();
        bank.wait().expect("packs");
        let bytes = bank.bytes();
        let mut second = bank.wanted();
        let again = second.packed(&tensor("b", &[1.0, 2.0]), Reading::default(), packing(1)).expect("fits");
        second.start();
        assert!(again.is_settled() && bank.bytes() == bytes);
        assert!(again.as_ptr() == once.as_ptr() && again.as_ptr() != twice.as_ptr());
        assert_eq!((once[0], twice[0]), (1.0, 2.0));
        let mut third = bank.wanted();
        third.packed(&tensor("b", &[1.0, 3.0]), Reading::default(), packing(1)).expect("fits");
        third.start();
        assert!(bank.bytes() > bytes);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_keeps_nobody_waiting() {
        let bank = Bank::new(&Graph::default(), 2);
        let tensor = tensor("w", &[1.0; 6]);
        assert!(bank.wanted().packed(&tensor, Reading::default(), packing(2)).is_err());
        let mut wanted = bank.wanted();
        let packed = wanted.packed(&tensor, Reading::default(), packing(3)).expect("fits");
        wanted.jobs[0].tensor =
            Tensor::new("w", DType::F32, vec![1], vec![0; 4].into()).expect("sizes agree");
        wanted.start();
        assert!(packed.wait().is_err());
        let error = bank.wait().expect_err("one weight for six").to_string();
        assert!(error.contains("node `w`"), "{error}");
    }
}
