//! Ops that move elements by a rule: `Transpose`, `Expand`, `Tile`, `Concat`, `Split`, `Slice`, `Pad`, `Trilu`, space/depth.

use super::Op;
use crate::{Args, Dim, TensorType, Type, axis, broadcast};

/// Dimension `i` of the result is dimension `perm[i]` of the input; reversed when empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// The order.
    pub perm: Vec<usize>,
}

impl Transpose {
    /// The order for this rank.
    pub fn order(&self, rank: usize) -> Vec<usize> {
        if self.perm.is_empty() { (0..rank).rev().collect() } else { self.perm.clone() }
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        let order = self.order(x.rank());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.rank()) {
            return Err(format!("{order:?} is no order of {} dimensions", x.rank()));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: order.iter().map(|i| x.shape[*i]).collect() }.into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        let rank = args.optional(0)?.rank();
        self.order(rank).into_iter().eq(0..rank).then_some(0)
    }

    fn describe(&self) -> String {
        format!("{:?}", self.perm)
    }
}

/// Broadcasts `x` to the shape in input 1 (in both directions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expand;

impl Op for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(list) = args.ints(1) else {
            let rank = args.length(1).map(|n| n.max(x.rank()));
            return Ok(vec![rank.map_or(Type::Unknown, |n| TensorType::of_rank(x.dtype, n).into())]);
        };
        let shape = broadcast(&x.shape, &dims_of(&list)?)?;
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        let made = self.infer(args).ok()?;
        (made[0].known().is_some() && made.first() == Some(args.ty(0))).then_some(0)
    }
}

/// Integers as dimensions.
pub(crate) fn dims_of(list: &[i64]) -> Result<Vec<Dim>, String> {
    let one = |&n: &i64| usize::try_from(n).map(Dim::Fixed).map_err(|_| format!("a dimension of {n}"));
    list.iter().map(one).collect()
}

/// Repeats `x` along each dimension as often as input 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile;

impl Op for Tile {
    fn name(&self) -> &'static str {
        "Tile"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(list) = args.ints(1) else { return Ok(vec![TensorType::of_rank(x.dtype, x.rank()).into()]) };
        if list.len() != x.rank() {
            return Err(format!("{} counts for {} dimensions", list.len(), x.rank()));
        }
        let counts = dims_of(&list)?;
        let one = |(dim, count): (&Dim, &Dim)| match (dim.fixed(), count.fixed()) {
            (Some(n), Some(count)) => {
                n.checked_mul(count).map(Dim::Fixed).ok_or("the size overflows".to_owned())
            }
            _ => Ok(if *count == Dim::Fixed(1) { *dim } else { Dim::Unknown }),
        };
        let shape = x.shape.iter().zip(&counts).map(one).collect::<Result<_, _>>()?;
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// All inputs behind each other along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// Along this axis.
    pub axis: i64,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let all = args.all()?;
        let first = *all.first().ok_or("needs an input")?;
        let along = axis(self.axis, first.rank())?;
        let mut shape = first.shape.clone();
        for ty in &all[1..] {
            if ty.rank() != shape.len() || ty.dtype != first.dtype {
                return Err(format!("cannot join {:?} and {:?}", first, ty));
            }
            for (i, dim) in shape.iter_mut().enumerate() {
                *dim = match (i == along, *dim, ty.shape[i]) {
                    (true, Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a.saturating_add(b)),
                    (true, ..) => Dim::Unknown,
                    (false, Dim::Fixed(a), Dim::Fixed(b)) if a != b => {
                        return Err(format!("dimension {i} differs: {a} and {b}"));
                    }
                    (false, Dim::Fixed(a), _) => Dim::Fixed(a),
                    (false, _, b) => b,
                };
            }
        }
        Ok(vec![TensorType { dtype: first.dtype, shape }.into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        (args.len() == 1).then_some(0)
    }

    fn describe(&self) -> String {
        format!("axis {}", self.axis)
    }
}

/// Parts of `x` along an axis: of the sizes in input 1, or equal ones (the last may be smaller).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Along this axis.
    pub axis: i64,
    /// Number of parts.
    pub parts: usize,
}

impl Split {
    /// The sizes of the parts, when they are known.
    pub fn sizes(&self, args: &Args<'_>) -> Result<Option<Vec<usize>>, String> {
        let x = args.tensor(0)?;
        let along = axis(self.axis, x.rank())?;
        if args.has(1) {
            let Some(list) = args.ints(1) else { return Ok(None) };
            let sizes: Option<Vec<usize>> = list.iter().map(|n| usize::try_from(*n).ok()).collect();
            let sizes = sizes.filter(|s| s.len() == self.parts).ok_or("sizes do not fit the outputs")?;
            let total = sizes.iter().fold(0usize, |n, part| n.saturating_add(*part));
            return match x.shape[along].fixed() {
                Some(n) if n != total => Err(format!("parts of {total} elements out of {n}")),
                _ => Ok(Some(sizes)),
            };
        }
        let Some(n) = x.shape[along].fixed() else { return Ok(None) };
        let each = n.div_ceil(self.parts.max(1));
        Ok(Some((0..self.parts).map(|i| each.min(n.saturating_sub(i * each))).collect()))
    }
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "Split"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let along = axis(self.axis, x.rank())?;
        let sizes = self.sizes(args)?;
        let part = |i: usize| {
            let mut shape = x.shape.clone();
            shape[along] = sizes.as_ref().map_or(Dim::Unknown, |sizes| Dim::Fixed(sizes[i]));
            TensorType { dtype: x.dtype, shape }.into()
        };
        Ok((0..self.parts).map(part).collect())
    }
}

/// `x[starts:ends:steps]`. Inputs: `x`, starts, ends, and optionally axes and steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice;

/// One dimension of a slice: `start + i * step` for `i` in `0..count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the formula names them")]
pub struct Cut {
    pub start: usize,
    pub step: i64,
    pub count: usize,
}

/// Axis, start, end and step of a sliced dimension.
type Part = (usize, i64, i64, i64);

impl Slice {
    /// Each dimension's cut; none when only the data decides.
    pub fn cuts(args: &Args<'_>, shape: &[usize]) -> Result<Option<Vec<Cut>>, String> {
        let mut cuts: Vec<Cut> = shape.iter().map(|n| Cut { start: 0, step: 1, count: *n }).collect();
        let Some(parts) = Self::parts(args, shape.len())? else { return Ok(None) };
        for (along, start, end, step) in parts {
            cuts[along] = cut(shape[along], start, end, step)?;
        }
        Ok(Some(cuts))
    }

    /// Axis, start, end and step of each sliced dimension.
    fn parts(args: &Args<'_>, rank: usize) -> Result<Option<Vec<Part>>, String> {
        let (Some(starts), Some(ends)) = (args.ints(1), args.ints(2)) else { return Ok(None) };
        let given = |i: usize, default: Vec<i64>| if args.has(i) { args.ints(i) } else { Some(default) };
        let (Some(axes), Some(steps)) =
            (given(3, (0..starts.len() as i64).collect()), given(4, vec![1; starts.len()]))
        else {
            return Ok(None);
        };
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err("starts, ends, axes and steps differ in length".into());
        }
        let one = |i: usize| Ok((axis(axes[i], rank)?, starts[i], ends[i], steps[i]));
        (0..starts.len()).map(one).collect::<Result<Vec<_>, String>>().map(Some)
    }
}

fn cut(n: usize, start: i64, end: i64, step: i64) -> Result<Cut, String> {
    let n = n as i64;
    if step == 0 {
        return Err("a step of 0".into());
    }
    let place = |at: i64, low: i64, high: i64| {
        let at = if at < 0 { at.saturating_add(n) } else { at };
        at.clamp(low, high)
    };
    let (start, end) = if step > 0 {
        (place(start, 0, n), place(end, 0, n))
    } else {
        (place(start, 0, (n - 1).max(0)), place(end, -1, n - 1))
    };
    let span = if step > 0 { end - start } else { start - end };
    let count = if span <= 0 || n == 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) as usize };
    Ok(Cut { start: start.max(0) as usize, step, count })
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(parts) = Self::parts(args, x.rank())? else {
            return Ok(vec![TensorType::of_rank(x.dtype, x.rank()).into()]);
        };
        let mut shape = x.shape.clone();
        for (along, start, end, step) in parts {
            shape[along] = match shape[along].fixed() {
                Some(n) => Dim::Fixed(cut(n, start, end, step)?.count),
                None => Dim::Unknown,
            };
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        let shape = args.optional(0)?.dims()?;
        let cuts = Self::cuts(args, &shape).ok()??;
        cuts.iter().zip(&shape).all(|(c, n)| c.start == 0 && c.step == 1 && c.count == *n).then_some(0)
    }
}

/// What lies around the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PadMode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// Inputs: `x`, pads (all begins, then all ends; negative ones crop), and optionally the value and the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad {
    /// What is added.
    pub mode: PadMode,
}

impl Pad {
    /// Elements added before and behind each dimension.
    pub fn amounts(args: &Args<'_>) -> Result<Option<Vec<(i64, i64)>>, String> {
        let rank = args.tensor(0)?.rank();
        let Some(list) = args.ints(1) else { return Ok(None) };
        let over = if args.has(3) {
            let Some(axes) = args.ints(3) else { return Ok(None) };
            axes.iter().map(|a| axis(*a, rank)).collect::<Result<_, _>>()?
        } else {
            (0..rank).collect::<Vec<_>>()
        };
        if list.len() != 2 * over.len() {
            return Err(format!("{} pads for {} dimensions", list.len(), over.len()));
        }
        let mut amounts = vec![(0, 0); rank];
        for (i, along) in over.iter().enumerate() {
            amounts[*along] = (list[i], list[i + over.len()]);
        }
        Ok(Some(amounts))
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(amounts) = Self::amounts(args)? else {
            return Ok(vec![TensorType::of_rank(x.dtype, x.rank()).into()]);
        };
        let one = |(dim, (before, after)): (&Dim, &(i64, i64))| match dim.fixed() {
            Some(n) => (n as i64)
                .checked_add(*before)
                .and_then(|n| n.checked_add(*after))
                .and_then(|n| usize::try_from(n).ok())
                .map(Dim::Fixed)
                .ok_or_else(|| format!("pads of {before} and {after} on {n} elements")),
            None => Ok(if (*before, *after) == (0, 0) { *dim } else { Dim::Unknown }),
        };
        let shape = x.shape.iter().zip(&amounts).map(one).collect::<Result<_, _>>()?;
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn describe(&self) -> String {
        format!("{:?}", self.mode)
    }
}

/// The upper or lower triangle of each matrix, zero elsewhere; input 1, optional, moves the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trilu {
    /// The upper one.
    pub upper: bool,
}

impl Op for Trilu {
    fn name(&self) -> &'static str {
        "Trilu"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        if x.rank() < 2 { Err("takes matrices".into()) } else { Ok(vec![x.clone().into()]) }
    }
}

/// Blocks of pixels to channels or back. Input `[N, C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthSpace {
    /// Side of a block.
    pub block: usize,
    /// Channels become pixels.
    pub to_space: bool,
    /// Channels are ordered `[C, block, block]`, not `[block, block, C]`.
    pub channels_first: bool,
}

impl Op for DepthSpace {
    fn name(&self) -> &'static str {
        "DepthSpace"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        let (&[n, c, h, w], b) = (x.shape.as_slice(), self.block) else {
            return Err("takes [N, C, H, W]".into());
        };
        let area = b.checked_mul(b).filter(|n| *n > 0).ok_or("an impossible block")?;
        let fits = |dim: Dim, by: usize| dim.fixed().is_none_or(|n| n.is_multiple_of(by));
        let shape = if self.to_space {
            if !fits(c, area) {
                return Err(format!("{c:?} channels do not fill blocks of {b}"));
            }
            vec![n, c.map(|n| n / area), h.map(|n| n.saturating_mul(b)), w.map(|n| n.saturating_mul(b))]
        } else {
            if !fits(h, b) || !fits(w, b) {
                return Err(format!("blocks of {b} do not cover the image"));
            }
            vec![n, c.map(|n| n.saturating_mul(area)), h.map(|n| n / b), w.map(|n| n / b)]
        };
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}
