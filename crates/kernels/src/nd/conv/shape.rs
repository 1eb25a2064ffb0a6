//! What a convolution computes, and where its outputs go.

use super::PADDING;
use crate::nd::NdError;
use crate::nd::act::Act;
use crate::nd::layout::Layout;
use crate::nd::shape::Window;

/// What a convolution computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvShape {
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Equal parts of both that have nothing to do with each other.
    pub groups: usize,
    /// The window.
    pub window: Window,
    /// What the sum (with bias and residual) goes through.
    pub act: Act,
}

impl ConvShape {
    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> usize {
        let [height, width] = self.window.output().unwrap_or_default();
        let [ky, kx] = self.window.kernel;
        height * width * self.outputs * (self.channels / self.groups.max(1)) * ky * kx
    }

    /// Outputs of each channel, when channels are multiplied lane by lane.
    pub(super) fn lanes(&self, input: Layout) -> Option<usize> {
        let each = self.outputs / self.channels;
        let alone = self.groups == self.channels && input == Layout::Blocked && self.channels > 1;
        (alone && (1..=2).contains(&each)).then_some(each)
    }

    /// Fails when it is no convolution, or an image would overflow the address space.
    pub(super) fn check(&self, bias: Option<usize>) -> Result<[usize; 2], NdError> {
        let wrong = |what: String| NdError { what: "conv", reason: format!("{what}: {self:?}") };
        let output = self.window.output().ok_or_else(|| wrong("the window does not fit".into()))?;
        let groups = self.groups;
        let whole = |n: usize| n > 0 && n.checked_rem(groups) == Some(0);
        if !whole(self.channels) || !whole(self.outputs) {
            return Err(wrong(format!("channels do not fill {groups} groups")));
        }
        let per_output = [self.channels / groups, self.window.kernel[0], self.window.kernel[1]];
        let expected = per_output.iter().try_fold(self.outputs, |product, &n| product.checked_mul(n));
        if expected.and_then(|n| n.checked_mul(PADDING)).is_none() || bias.is_some_and(|n| n != self.outputs)
        {
            return Err(wrong(format!("{expected:?} weights, bias {bias:?}")));
        }
        let floats = |channels, [h, w]: [usize; 2]| Layout::Blocked.floats(channels, h * w);
        let fits = |floats: Option<usize>| floats.is_some_and(|n| n < isize::MAX as usize / 4);
        if !fits(floats(self.channels, self.window.input)) || !fits(floats(self.outputs, output)) {
            return Err(wrong("the image is too large".into()));
        }
        Ok(output)
    }
}

/// Where outputs go that are only some pixels of a larger image: output `(y, x)` is its pixel `(y, x) * stride + at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scatter {
    /// Height and width of the larger image.
    pub size: [usize; 2],
    /// Distance of neighbouring outputs.
    pub stride: [usize; 2],
    /// Where the first output goes.
    pub at: [usize; 2],
}

impl Scatter {
    /// All outputs, and nothing else.
    pub(super) fn none(output: [usize; 2]) -> Self {
        Self { size: output, stride: [1, 1], at: [0, 0] }
    }

    /// Whether outputs of this size have a place.
    pub(super) fn holds(&self, output: [usize; 2]) -> bool {
        let end = |i: usize| (output[i] - 1).checked_mul(self.stride[i])?.checked_add(self.at[i]);
        (0..2).all(|i| self.stride[i] > 0 && end(i).is_some_and(|end| end < self.size[i]))
    }

    /// The pixel that output `at` of images `width` wide goes to.
    pub(super) fn pixel(&self, width: usize, at: usize) -> usize {
        let [y, x] = [at / width, at % width];
        (y * self.stride[0] + self.at[0]) * self.size[1] + x * self.stride[1] + self.at[1]
    }
}
