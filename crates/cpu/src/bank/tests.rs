//! What is shared, what is kept, and what waits for nothing.

use super::*;
use kinglet_kernels::nd::{Act, Gemm, Order};
use kinglet_tensor::DType;

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
    let twice = first.packed(&tensor("a", &[1.0, 2.0]), Reading::times(&[2.0], 1), packing(1)).expect("fits");
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
    wanted.jobs[0].tensor = Tensor::new("w", DType::F32, vec![1], vec![0; 4].into()).expect("sizes agree");
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

/// Packs two constants; returns what their first floats are. What is packed anew is kept anew.
fn load(shelf: &Arc<Shelf>, factor: f32) -> [f32; 2] {
    let backend = CpuBackend { packs: Some(shelf.clone()), ..CpuBackend::new(2) };
    let bank = Bank::new(&Graph::default(), &backend);
    let mut wanted = bank.wanted();
    let (a, b) = (tensor("a", &[1.0, 2.0]), tensor("b", &[3.0, 4.0, 5.0, 6.0]));
    let a = wanted.packed(&a, Reading::times(&[factor], 2), packing(1)).expect("fits");
    let b = wanted.packed(&b, Reading::default(), packing(2)).expect("fits");
    wanted.start();
    bank.wait().expect("packs");
    [a[0], b[0]]
}

#[test]
fn what_was_kept_is_used_and_what_is_damaged_is_packed_anew() {
    let shelf = Arc::new(Shelf::default());
    let kept = || shelf.0.lock().expect("sound").len();
    assert_eq!((load(&shelf, 2.0), kept()), ([2.0, 3.0], 1));
    assert_eq!((load(&shelf, 2.0), kept()), ([2.0, 3.0], 1), "the kept one is used");
    assert_eq!((load(&shelf, 7.0), kept()), ([7.0, 3.0], 2), "another factor is another file");
    shelf.0.lock().expect("sound").truncate(1);
    {
        let mut files = shelf.0.lock().expect("sound");
        let mut bent = kinglet_tensor::AlignedBuf::<u8>::try_new(files[0].1.len()).expect("memory");
        bent.copy_from_slice(&files[0].1);
        let last = bent.len() - 1;
        bent[last] ^= 1;
        files[0].1 = bent.into();
    }
    assert_eq!((load(&shelf, 2.0), kept()), ([2.0, 3.0], 2));
}
