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
use kinglet_tensor::{Bytes, DType, Tensor};

use crate::CpuBackend;
use crate::pack_file::{self, Checked, PackFile, PackStore, check};
use crate::reading::Reading;
use crate::weights::release;

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
        Self { jobs, next: AtomicUsize::new(0), left, anew: AtomicBool::new(false), keep }
    }

    /// Packs until nothing is left; the last one gives what was packed anew to the store.
    fn work(&self) {
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !job.run() {
                self.anew.store(true, Ordering::Relaxed);
            }
            if self.left.fetch_sub(1, Ordering::AcqRel) == 1 && self.anew.load(Ordering::Relaxed) {
                self.keep();
            }
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
    }
}

impl Job {
    /// Packs the weights, or takes what was kept of them; says whether it could.
    fn run(&self) -> bool {
        let promise = Promise(&self.packed);
        let kept = self.kept.as_ref().filter(|(data, sum)| check(data) == *sum);
        promise.0.fill(match kept {
            Some((data, _)) => Ok(data.clone()),
            None => self.key.packing.pack(&self.key.reading.values(self.tensor.data())),
        });
        release(self.tensor.data());
        kept.is_some()
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
mod tests {
    use super::*;
    use kinglet_kernels::nd::{Act, Gemm, Order};

    fn tensor(name: &str, values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(name, DType::F32, vec![2, values.len() / 2], bytes.into()).expect("sizes agree")
    }

    fn packing(n: usize) -> Packing {
        Gemm::new(Level::SCALAR, (2, n), Order::Inputs, None, Act::NONE).expect("a product").packing()
    }

    #[test]
    fn equal_content_is_packed_once() {
        let bank = Bank::new(&Graph::default(), &CpuBackend::new(2));
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
        let bank = Bank::new(&Graph::default(), &CpuBackend::new(2));
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

    #[test]
    fn plans_share_the_constants_that_were_made_for_them() {
        let own = [1.0f32; 2000];
        let graph = |values: &[f32]| {
            let mut graph = kinglet_graph::GraphBuilder::new();
            graph.weight(tensor("w", values)).expect("new");
            graph.finish()
        };
        let first = |graph: &Graph| match &graph.values()[0].def {
            kinglet_graph::Def::Weight(tensor) => tensor.data().as_ptr(),
            _ => panic!("no weight"),
        };
        let bank = Bank::new(&Graph::default(), &CpuBackend::new(1));
        let [mut a, mut b, mut c] = [graph(&own), graph(&own), graph(&[2.0; 2000])];
        let apart = first(&b);
        [&mut a, &mut b, &mut c].into_iter().for_each(|graph| bank.share(graph));
        assert!(first(&a) == first(&b) && first(&b) != apart && first(&c) != first(&a));
    }

    /// Keeps files in memory.
    #[derive(Debug, Default)]
    struct Shelf(Mutex<Vec<(Vec<u8>, Bytes)>>);

    impl PackStore for Shelf {
        fn load(&self, description: &[u8]) -> Option<Bytes> {
            let files = self.0.lock().expect("sound");
            files.iter().rev().find(|(known, _)| known == description).map(|(_, file)| file.clone())
        }

        fn keep(&self, description: &[u8], file: PackFile) {
            // Mapped files begin at a page.
            let whole = file.parts().concat();
            let mut aligned = kinglet_tensor::AlignedBuf::<u8>::try_new(whole.len()).expect("memory");
            aligned.copy_from_slice(&whole);
            self.0.lock().expect("sound").push((description.to_vec(), aligned.into()));
        }
    }

    /// Packs two constants; returns what their first floats are, and whether they lie in the newest kept file.
    fn load(shelf: &Arc<Shelf>, factor: f32) -> ([f32; 2], bool) {
        let backend = CpuBackend { packs: Some(shelf.clone()), ..CpuBackend::new(2) };
        let bank = Bank::new(&Graph::default(), &backend);
        let mut wanted = bank.wanted();
        let (a, b) = (tensor("a", &[1.0, 2.0]), tensor("b", &[3.0, 4.0, 5.0, 6.0]));
        let a = wanted.packed(&a, Reading::times(&[factor], 2), packing(1)).expect("fits");
        let b = wanted.packed(&b, Reading::default(), packing(2)).expect("fits");
        wanted.start();
        bank.wait().expect("packs");
        let file = shelf.0.lock().expect("sound").last().map(|(_, file)| file.as_ptr_range());
        let inside =
            |packed: &Packed| file.as_ref().is_some_and(|file| file.contains(&packed.as_ptr().cast()));
        ([a[0], b[0]], inside(&a) && inside(&b))
    }

    #[test]
    fn what_was_kept_is_used_and_what_is_damaged_is_packed_anew() {
        let shelf = Arc::new(Shelf::default());
        let kept = || shelf.0.lock().expect("sound").len();
        assert_eq!((load(&shelf, 2.0), kept()), (([2.0, 3.0], false), 1));
        assert_eq!((load(&shelf, 2.0), kept()), (([2.0, 3.0], true), 1));
        assert_eq!((load(&shelf, 7.0).0, kept()), ([7.0, 3.0], 2), "another factor is another file");
        shelf.0.lock().expect("sound").truncate(1);
        {
            let mut files = shelf.0.lock().expect("sound");
            let mut bent = kinglet_tensor::AlignedBuf::<u8>::try_new(files[0].1.len()).expect("memory");
            bent.copy_from_slice(&files[0].1);
            let last = bent.len() - 1;
            bent[last] ^= 1;
            files[0].1 = bent.into();
        }
        assert_eq!((load(&shelf, 2.0).0, kept()), ([2.0, 3.0], 2));
    }
}
