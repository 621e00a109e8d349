//! Figures: measured, compared, printed, and written as JSON.

use std::path::PathBuf;

use serde_json::{Value, json};

/// All figures of a run.
pub struct Table {
    figures: Vec<Value>,
    missed: bool,
}

/// One figure. Numbers are in the unit that is named.
pub struct Figure<'a> {
    pub what: &'a str,
    pub unit: &'a str,
    pub measured: f64,
    /// At most this, in the same unit.
    pub limit: Option<f64>,
    /// The floor, and how many times it the figure may be.
    pub floor: Option<(f64, Option<f64>)>,
}

impl Figure<'_> {
    /// A figure without a target, for whoever wants to know what the others are made of.
    pub fn plain<'a>(what: &'a str, unit: &'a str, measured: f64) -> Figure<'a> {
        Figure { what, unit, measured, limit: None, floor: None }
    }

    pub fn at_most<'a>(what: &'a str, unit: &'a str, measured: f64, limit: f64) -> Figure<'a> {
        Figure { what, unit, measured, limit: Some(limit), floor: None }
    }
}

impl Table {
    pub fn new() -> Table {
        println!("{:<58} {:<26} {:>12} {:>18}  ", "FIGURE", "TARGET", "MEASURED", "FLOOR (TIMES)");
        Table { figures: Vec::new(), missed: false }
    }

    /// Prints it at once: a run is long.
    pub fn add(&mut self, figure: Figure<'_>) {
        let Figure { what, unit, measured, limit, floor } = figure;
        let times = floor.map(|(floor, _)| measured / floor);
        let most_times = floor.and_then(|(_, most)| most);
        let held = [limit.map(|limit| measured <= limit), most_times.zip(times).map(|(most, times)| times <= most)];
        let verdict = match held.iter().flatten().copied().reduce(|a, b| a && b) {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        self.missed |= verdict == "MISSED";
        let target = match (most_times, limit) {
            (Some(most), Some(limit)) => format!("≤ {most} × floor, ≤ {limit} {unit}"),
            (Some(most), None) => format!("≤ {most} × floor"),
            (None, Some(limit)) => format!("≤ {limit} {unit}"),
            (None, None) => String::new(),
        };
        let shown = format!("{measured:.1} {unit}");
        let shown_floor = floor.map_or(String::new(), |(floor, _)| format!("{floor:.1} ({:.2})", measured / floor));
        println!("{what:<58} {target:<26} {shown:>12} {shown_floor:>18}  {verdict}");
        self.figures.push(json!({"figure": what, "unit": unit, "measured": measured, "limit": limit,
            "floor": floor.map(|(floor, _)| floor), "times": times, "most_times": most_times, "verdict": verdict}));
    }

    /// Words beside the figures.
    pub fn say(&mut self, words: &str) {
        println!("  {words}");
        self.figures.push(json!({"note": words}));
    }

    /// Writes the JSON and ends the process: 1 where a figure missed its target.
    pub fn end(self) -> ! {
        let path: PathBuf = match std::env::var_os("LXDRUNNER_BENCH_JSON") {
            Some(path) => path.into(),
            None => PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench.json"),
        };
        std::fs::write(&path, serde_json::to_string_pretty(&self.figures).unwrap()).unwrap();
        println!("written to {}", path.display());
        std::process::exit(i32::from(self.missed));
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
