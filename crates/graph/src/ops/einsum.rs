//! `Einsum`: sums of products by an equation such as `bij,bjk->bik`.

use super::Op;
use crate::{Args, Dim, TensorType, Type};

/// Any number of inputs, combined by the equation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// The equation.
    pub equation: String,
}

/// An equation over known ranks: the letter of each dimension. Dimensions behind an ellipsis have numbers as letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For each input, the letters of its dimensions.
    pub inputs: Vec<Vec<char>>,
    /// The letters of the output's dimensions.
    pub output: Vec<char>,
}

impl Einsum {
    /// The letters for inputs of these ranks.
    pub fn terms(&self, ranks: &[usize]) -> Result<Terms, String> {
        let text: String = self.equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(l, r)| (l, Some(r)));
        let parts: Vec<&str> = left.split(',').collect();
        if parts.len() != ranks.len() {
            return Err(format!("`{}` takes {} inputs, got {}", self.equation, parts.len(), ranks.len()));
        }
        let plain = |part: &str| part.chars().filter(|c| *c != '.').count();
        let hidden = parts
            .iter()
            .zip(ranks)
            .filter(|(p, _)| p.contains("..."))
            .map(|(p, r)| r.saturating_sub(plain(p)));
        let hidden = hidden.max().unwrap_or(0);
        let letters = |part: &str, count: usize| -> Vec<char> {
            let numbered = (hidden - count.min(hidden)..hidden)
                .map(|i| char::from_u32(0xE000 + i as u32).unwrap_or('?'));
            let (before, after) = part.split_once("...").unwrap_or((part, ""));
            let middle: Vec<char> = if part.contains("...") { numbered.collect() } else { Vec::new() };
            before.chars().chain(middle).chain(after.chars()).collect()
        };
        let mut inputs = Vec::new();
        for (part, rank) in parts.iter().zip(ranks) {
            let list = letters(part, rank.saturating_sub(plain(part)));
            if list.len() != *rank {
                return Err(format!("`{part}` does not name {rank} dimensions"));
            }
            inputs.push(list);
        }
        let output = match right {
            Some(right) => letters(right, hidden),
            None => implicit(&inputs),
        };
        Ok(Terms { inputs, output })
    }
}

/// Without an arrow: the ellipsis, then the letters that occur once, in order.
fn implicit(inputs: &[Vec<char>]) -> Vec<char> {
    let mut all: Vec<char> = inputs.iter().flatten().copied().collect();
    all.sort_unstable();
    let once = |c: &char| all.iter().filter(|d| *d == c).count() == 1;
    let numbered = |c: &char| *c >= '\u{E000}';
    let mut hidden: Vec<char> = all.iter().copied().filter(numbered).collect();
    hidden.dedup();
    hidden.extend(all.iter().copied().filter(|c| once(c) && !numbered(c)));
    hidden
}

impl Op for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let all = args.all()?;
        let ranks: Vec<usize> = all.iter().map(|ty| ty.rank()).collect();
        let terms = self.terms(&ranks)?;
        let size = |letter: &char| {
            let dims = terms.inputs.iter().zip(&all).flat_map(|(t, ty)| t.iter().zip(&ty.shape));
            let dims: Vec<Dim> = dims.filter(|(c, _)| *c == letter).map(|(_, dim)| *dim).collect();
            let large = dims.iter().find(|dim| dim.fixed() != Some(1)).copied();
            large
                .or(dims.first().copied())
                .ok_or_else(|| format!("`{letter}` names no dimension of an input"))
        };
        let dtype = all.first().ok_or("needs an input")?.dtype;
        let shape = terms.output.iter().map(size).collect::<Result<_, _>>()?;
        Ok(vec![TensorType { dtype, shape }.into()])
    }

    fn describe(&self) -> String {
        self.equation.clone()
    }
}
