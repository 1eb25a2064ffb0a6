//! `Einsum` and `NllLoss` in f64.

use kinglet_graph::ops::{Einsum, LossKind, NllLoss};

use super::{Call, HostOp, Outcome, Outs, around, shape_of, store, store_ints, strides, walk};

impl HostOp for Einsum {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let views = (0..call.args.len()).map(|i| call.view(i)).collect::<Result<Vec<_>, _>>()?;
        let terms = self.terms(&views.iter().map(|v| v.rank()).collect::<Vec<_>>())?;
        let shape = shape_of(outs, 0)?;
        let mut letters = terms.output.clone();
        for c in terms.inputs.iter().flatten() {
            if !letters.contains(c) {
                letters.push(*c);
            }
        }
        let size = |letter: &char| {
            let dims = terms.inputs.iter().zip(&views).flat_map(|(t, v)| t.iter().zip(v.shape));
            dims.filter(|(c, _)| *c == letter).map(|(_, n)| *n).max().unwrap_or(1)
        };
        let sizes: Vec<usize> = letters.iter().map(size).collect();
        for (term, view) in terms.inputs.iter().zip(&views) {
            if term.iter().zip(view.shape).any(|(c, n)| *n != 1 && *n != size(c)) {
                return Err(format!("`{}` for {:?}: sizes differ", self.equation, view.shape));
            }
        }
        let steps = |t: &[char], shape: &[usize]| -> Vec<usize> {
            let own = strides(shape);
            let one = |letter: &char| {
                let dims = t.iter().enumerate().filter(|(d, c)| *c == letter && shape[*d] != 1);
                dims.map(|(d, _)| own[d]).sum()
            };
            letters.iter().map(one).collect()
        };
        let values = views.iter().map(|v| v.f64s()).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<Vec<usize>> = terms.inputs.iter().zip(&views).map(|(t, v)| steps(t, v.shape)).collect();
        let out_steps = steps(&terms.output, &shape);
        let mut made = vec![0.0; shape.iter().product()];
        let mut products = vec![1.0; sizes.iter().product()];
        for (list, steps) in values.iter().zip(&all) {
            let mut i = 0;
            walk(&sizes, [steps], |[at]| {
                products[i] *= list[at];
                i += 1;
            });
        }
        let mut i = 0;
        walk(&sizes, [&out_steps], |[at]| {
            made[at] += products[i];
            i += 1;
        });
        if views.first().is_some_and(|v| v.dtype.is_integer()) {
            return store_ints(outs, 0, &made.iter().map(|x| *x as i64).collect::<Vec<_>>());
        }
        store(outs, 0, &made)
    }
}

impl HostOp for NllLoss {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (x, target) = (call.view(0)?, call.view(1)?.i64s()?);
        let weights = call.get(2).map(|w| w.f64s()).transpose()?;
        if x.rank() < 2 {
            return Err(format!("takes [N, classes, ..], got {:?}", x.shape));
        }
        let (batch, classes, inner) = around(x.shape, 1);
        if target.len() != batch * inner || weights.as_ref().is_some_and(|w| w.len() != classes) {
            return Err(format!("{} targets for {:?}", target.len(), x.shape));
        }
        let values = x.f64s()?;
        let (mut each, mut total) = (Vec::with_capacity(target.len()), 0.0);
        for (i, class) in target.iter().enumerate() {
            if self.ignore == Some(*class) {
                each.push(0.0);
                continue;
            }
            let class =
                usize::try_from(*class).ok().filter(|c| *c < classes).ok_or("a class that does not exist")?;
            let weight = weights.as_ref().map_or(1.0, |w| w[class]);
            total += weight;
            each.push(-values[(i / inner * classes + class) * inner + i % inner] * weight);
        }
        let sum: f64 = each.iter().sum();
        match self.kind {
            LossKind::Each => store(outs, 0, &each),
            LossKind::Sum => store(outs, 0, &[sum]),
            LossKind::Mean => store(outs, 0, &[sum / total]),
        }
    }
}
