//! Text in columns, for people.

use crate::text::escaped;

/// A line for each row, every column as wide as its widest cell.
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect();
    for row in &rows {
        let begin = text.len();
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            text.push_str(&format!("{cell:width$}  "));
        }
        let end = text.get(begin..).map_or(0, |line| line.trim_end().len());
        text.truncate(begin + end);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["A", "LONG", "C"], ["äöü", "1", "x y"], ["", "2", ""], ["\n", "", ""]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        assert_eq!(columns(&rows), "A    LONG  C\näöü  1     x y\n     2\n\\n\n");
    }
}
