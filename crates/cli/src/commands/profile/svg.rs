//! A profile as a picture: for each test, bars by kind of step, and the last run as a strip of blocks and steps.
//!
//! Colour says what holds a step; the full part of a bar is the least time it could take, the pale part the rest.

use std::fmt::Write;

use kinglet::graph::cost::Ceiling;
use kinglet::profile::{Entry, block};

use super::text::{percent, time};
use super::{Profiled, Run};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 24.0;
/// Columns: labels, bars, figures.
const BARS: f64 = 470.0;
const FIGURES: f64 = 960.0;
const ROW: f64 = 20.0;
const STRIP: f64 = 26.0;
/// Kinds shown; the rest is one bar.
const MOST: usize = 14;

/// The whole picture.
pub(super) fn render(title: &str, all: &[Profiled]) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 18.0;
    text(&mut body, MARGIN, y, "title", title);
    y += 26.0;
    legend(&mut body, y);
    y += 30.0;
    for profiled in all {
        y = test(&mut body, y, profiled) + 34.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" height=\"{y:.0}\">\n\
         <style>text{{font:13px system-ui,sans-serif;fill:#1f2430}}.title{{font-size:18px;font-weight:600}}\
         .head{{font-size:15px;font-weight:600}}.dim{{fill:#667085}}.small{{font-size:11px}}\
         .right{{text-anchor:end}}.mid{{text-anchor:middle}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn colour(ceiling: Ceiling) -> &'static str {
    match ceiling {
        Ceiling::Memory => "#2e6fdb",
        Ceiling::Cache => "#14a38b",
        Ceiling::Float => "#d9822b",
        Ceiling::Bf16 => "#b5a020",
        Ceiling::Int8 => "#c2334d",
        Ceiling::Int16 => "#8c4a6b",
        Ceiling::Step => "#8a63d2",
    }
}

fn legend(out: &mut String, y: f64) {
    let words = [
        (Ceiling::Memory, "held by memory"),
        (Ceiling::Cache, "by caches"),
        (Ceiling::Float, "by f32 arithmetic"),
        (Ceiling::Bf16, "by bf16 arithmetic"),
        (Ceiling::Int8, "by int8 arithmetic"),
        (Ceiling::Int16, "by int16 arithmetic"),
        (Ceiling::Step, "by barriers"),
    ];
    let mut x = MARGIN;
    for (ceiling, words) in words {
        rect(out, (x, y - 11.0), (12.0, 12.0), colour(ceiling), 1.0, "");
        text(out, x + 18.0, y, "dim", words);
        x += 34.0 + 7.2 * words.len() as f64;
    }
    text(out, x, y, "dim", "full: the least time by that ceiling; pale: the rest");
}

/// One test below `y`; hands back where it ends.
fn test(out: &mut String, mut y: f64, profiled: &Profiled) -> f64 {
    let Profiled { test, runs, profile, .. } = profiled;
    let per = profile.runs.max(1) as f64;
    let head = format!(
        "{test}: {} a run, at least {} by the ceilings ({})",
        time(profile.wall / per),
        time(profile.least() / per),
        percent(profile.least() / profile.wall),
    );
    text(out, MARGIN, y, "head", &head);
    y += 12.0;
    let kinds = profile.kinds();
    let longest = kinds.first().map_or(1.0, |kind| kind.seconds);
    for kind in kinds.iter().take(MOST) {
        bar(out, y, kind, longest, profile.wall, per);
        y += ROW;
    }
    let rest: f64 = kinds.iter().skip(MOST).map(|kind| kind.seconds).sum();
    if kinds.len() > MOST {
        let words = format!("{} more kinds of steps: {}", kinds.len() - MOST, percent(rest / profile.wall));
        text(out, MARGIN, y + 14.0, "dim", &words);
        y += ROW;
    }
    y += 16.0;
    if let Some(run) = runs.last() {
        strip(out, y, profiled, run);
        y += 2.0 * STRIP + 20.0;
    }
    y
}

fn bar(out: &mut String, y: f64, kind: &Entry, longest: f64, wall: f64, per: f64) {
    let room = FIGURES - BARS - 100.0;
    let (all, least) =
        (room * kind.seconds / longest, room * (kind.least / longest).min(kind.seconds / longest));
    let times = if kind.count > 1 { format!(" × {}", kind.count) } else { String::new() };
    text(out, MARGIN, y + 14.0, "", &format!("{}{times}", kind.name));
    text(out, MARGIN + 160.0, y + 14.0, "dim small", &kind.kernel.chars().take(46).collect::<String>());
    rect(out, (BARS, y + 3.0), (all, ROW - 6.0), colour(kind.ceiling), 0.3, &kind.kernel);
    rect(out, (BARS, y + 3.0), (least, ROW - 6.0), colour(kind.ceiling), 1.0, &kind.kernel);
    let figures = [
        (FIGURES, time(kind.seconds / per)),
        (FIGURES + 90.0, percent(kind.seconds / wall)),
        (WIDTH - MARGIN, format!("{:.0} % of ceiling", 100.0 * kind.share())),
    ];
    for (x, words) in figures {
        text(out, x, y + 14.0, "right", &words);
    }
}

/// A run from left to right: blocks above, steps below.
fn strip(out: &mut String, y: f64, profiled: &Profiled, run: &Run) {
    let scale = (WIDTH - 2.0 * MARGIN) / run.wall;
    let at = |seconds: f64| MARGIN + seconds * scale;
    let mut open: Option<(&str, f64, f64)> = None;
    let mut shade = false;
    let mut close = |out: &mut String, (name, from, to): (&str, f64, f64)| {
        shade = !shade;
        let (x, width) = (at(from), (to - from) * scale);
        rect(out, (x, y), (width, STRIP - 2.0), if shade { "#e4e7ec" } else { "#d0d5dd" }, 1.0, name);
        let label = name.strip_prefix("blk.").unwrap_or(name);
        if width > 7.0 * label.len() as f64 + 6.0 {
            text(out, x + width / 2.0, y + 16.0, "mid small", label);
        }
    };
    for (step, (begin, end)) in profiled.plan.steps.iter().zip(run.steps()) {
        let (least, ceiling) = profiled.rates.least(&step.cost(&run.seqs));
        let share = (least / (end - begin)).min(1.0);
        let words = format!(
            "{}: {} · {}, {} of {}",
            step.name,
            step.kernel,
            time(end - begin),
            percent(share),
            ceiling.name()
        );
        rect(
            out,
            (at(begin), y + STRIP),
            ((end - begin) * scale, STRIP),
            colour(ceiling),
            0.25 + 0.75 * share,
            &words,
        );
        let of = block(&step.name).unwrap_or(&step.name);
        open = match open {
            Some((name, from, _)) if name == of => Some((name, from, end)),
            before => {
                before.into_iter().for_each(|span| close(out, span));
                Some((of, begin, end))
            }
        };
    }
    open.into_iter().for_each(|span| close(out, span));
    text(
        out,
        MARGIN,
        y + 2.0 * STRIP + 14.0,
        "dim small",
        "the last run from left to right: blocks, and below them steps (the fuller the colour, the nearer to the ceiling)",
    );
}

/// A rectangle that tells `title` when pointed at.
fn rect(
    out: &mut String,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
    fill: &str,
    opacity: f64,
    title: &str,
) {
    let _infallible = write!(
        out,
        "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{fill}\" fill-opacity=\"{opacity:.2}\">"
    );
    if !title.is_empty() {
        let _infallible = write!(out, "<title>{}</title>", escaped(title));
    }
    out.push_str("</rect>\n");
}

fn text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let _infallible =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(words));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
