//! Chains against their convolutions one by one.

use kinglet_simd::Level;

use super::*;
use crate::nd::act::Act;
use crate::nd::conv::{ConvShape, conv};
use crate::nd::shape::Window;
use crate::nd::testing::{Case, Map, random};

/// Channels, outputs, groups, window, activation of each convolution.
type Spec = (usize, usize, usize, [usize; 3], Act);

/// With `halves`, what the chain reads is bfloat16 where that can be, and what it makes.
fn packed(
    level: Level,
    [bf16, halves]: [bool; 2],
    specs: &[Spec],
    size: [usize; 2],
    input: Layout,
) -> Vec<Arc<Conv>> {
    let mut size = size;
    let one = |(i, (channels, outputs, groups, [taps, stride, pad], act)): (usize, &Spec)| {
        let window = Window::square(size, *taps, *stride, *pad);
        size = window.output().expect("fits");
        let shape = ConvShape { channels: *channels, outputs: *outputs, groups: *groups, window, act: *act };
        let weights = random(i as u64 + 1, outputs * channels / groups * taps * taps);
        let bias = random(i as u64 + 11, *outputs);
        let input = if i == 0 { input } else { Layout::Blocked };
        let conv = Conv::new(level, shape, Some(&bias), input, None).expect("a convolution");
        let conv = if bf16 { conv.in_bf16() } else { conv };
        let reads = if halves && i == 0 && conv.takes_halves() { Layout::Halves } else { input };
        let makes = if halves && i + 1 == specs.len() { Layout::Halves } else { Layout::Blocked };
        let conv = conv.between(reads, makes).expect("such images");
        Arc::new(conv.filled(&weights).expect("packs"))
    };
    specs.iter().enumerate().map(one).collect()
}

fn check(specs: &[Spec], size: [usize; 2], input: Layout, images: usize, with_residual: bool) {
    let forms = [[false, false], [true, false], [true, true], [false, true]];
    for (level, form) in Level::available().into_iter().flat_map(|level| forms.map(|form| (level, form))) {
        let convs = packed(level, form, specs, size, input);
        let map = |conv: &Conv, out: bool| {
            let [h, w] = if out { conv.output } else { conv.shape.window.input };
            let channels = if out { conv.shape.outputs } else { conv.shape.channels };
            let layout = conv.lies[usize::from(out)];
            Map { images, channels, pixels: h * w, layout }
        };
        let (first, last) = (map(&convs[0], false), map(&convs[convs.len() - 1], true));
        let planar = random(21, images * first.channels * first.pixels);
        let added = random(22, images * last.channels * last.pixels);
        // One by one.
        let mut values = planar.clone();
        for (i, one) in convs.iter().enumerate() {
            let mut case = Case::new(level);
            let (from, to) = (map(one, false), map(one, true));
            let x = case.input(from, &values);
            let last = with_residual && i + 1 == convs.len();
            let residual = last.then(|| case.input(to, &added));
            let out = case.output(to);
            values = case.values(|| conv(one.clone(), x, residual, out).expect("binds"), out, to);
        }
        let expected: Vec<f64> = values.into_iter().map(f64::from).collect();
        let chain = ConvChain::new(convs).expect("a chain");
        // All rows at once, and few at a time.
        for band in [chain.band, 1, 3] {
            let convs = chain.stages.iter().map(|stage| stage.conv.clone()).collect();
            let (stages, buffers, rounded) = stages(convs, band).expect("small");
            let chain = Arc::new(ConvChain { stages, band, buffers, floats: buffers + rounded });
            let mut case = Case::new(level);
            let x = case.input(first, &planar);
            let residual = with_residual.then(|| case.input(last, &added));
            let out = case.output(last);
            let step = || conv_chain(chain.clone(), x, residual, out).expect("binds");
            case.check(step, out, last, &expected, 0.0);
        }
    }
}

const CLIP: Act = Act::RELU6;

#[test]
fn a_chain_is_its_convolutions_one_by_one() {
    let inverted =
        [(24, 72, 1, [1, 1, 0], CLIP), (72, 72, 72, [3, 1, 1], CLIP), (72, 24, 1, [1, 1, 0], Act::NONE)];
    check(&inverted, [13, 19], Layout::Blocked, 1, true);
    let halving =
        [(16, 40, 1, [1, 1, 0], CLIP), (40, 40, 40, [5, 2, 2], Act::HardSwish), (40, 20, 1, [1, 1, 0], CLIP)];
    check(&halving, [17, 12], Layout::Blocked, 2, false);
    let mixer = [
        (20, 20, 20, [7, 1, 3], Act::NONE),
        (20, 60, 1, [1, 1, 0], Act::Gelu),
        (60, 20, 1, [1, 1, 0], Act::NONE),
    ];
    check(&mixer, [16, 16], Layout::Blocked, 1, true);
    let stem = [(3, 24, 1, [3, 2, 1], CLIP), (24, 24, 24, [3, 2, 1], CLIP), (24, 48, 1, [1, 1, 0], CLIP)];
    check(&stem, [30, 33], Layout::Planar, 2, false);
    let doubled = [(16, 32, 16, [3, 2, 1], CLIP), (32, 16, 1, [3, 1, 1], CLIP)];
    check(&doubled, [9, 10], Layout::Blocked, 1, true);
    let long = [
        (8, 8, 1, [3, 1, 0], CLIP),
        (8, 8, 1, [3, 1, 2], CLIP),
        (8, 16, 1, [2, 2, 0], CLIP),
        (16, 8, 8, [3, 1, 1], CLIP),
    ];
    check(&long, [14, 9], Layout::Blocked, 1, false);
    let odd = [(9, 17, 1, [3, 2, 1], CLIP), (17, 8, 1, [3, 2, 1], CLIP), (8, 16, 1, [1, 1, 0], CLIP)];
    check(&odd, [14, 14], Layout::Blocked, 1, false);
}

#[test]
fn what_does_not_fit_is_no_chain() {
    let level = Level::SCALAR;
    let specs = [(16, 32, 1, [1, 1, 0], CLIP), (32, 16, 1, [3, 1, 1], CLIP)];
    let convs = packed(level, [false; 2], &specs, [8, 8], Layout::Blocked);
    assert!(ConvChain::new(convs.clone()).is_ok_and(|chain| chain.fits()));
    assert!(ConvChain::new(convs[..1].to_vec()).is_err());
    assert!(ConvChain::new(vec![convs[1].clone(), convs[1].clone()]).is_err());
    assert!(ConvChain::new(vec![convs[0].clone(); 9]).is_err());
    let small = packed(level, [false; 2], &specs[1..], [4, 4], Layout::Blocked);
    assert!(ConvChain::new(vec![convs[0].clone(), small[0].clone()]).is_err());
    let chain = Arc::new(ConvChain::new(convs).expect("a chain"));
    let span = |at, rows, cols| Span::f32(at, crate::Rows::Fixed(rows), cols);
    assert!(conv_chain(chain.clone(), span(0, 1, 1024), None, span(4096, 1, 1024)).is_ok());
    assert!(conv_chain(chain.clone(), span(0, 1, 1023), None, span(4096, 1, 1024)).is_err());
    assert!(conv_chain(chain, span(0, 1, 1024), Some(span(8192, 2, 1024)), span(4096, 1, 1024)).is_err());
}
