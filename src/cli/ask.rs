//! What most commands do: send one request to the daemon or the store, and print the answer.

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{Failures, Place, door};

/// Whom a command asks, and how the answer is printed.
#[derive(Args)]
pub struct Asking {
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub place: Place,
}

impl Asking {
    /// Sends a request and prints the answer.
    pub fn ask(
        &self,
        method: &Method,
        path: &str,
        body: &Value,
        for_people: fn(&Value) -> String,
    ) -> Result<(), Failures> {
        let answer = door::call(&self.place.configure()?, method, path, body)?;
        self.print(&answer, for_people)
    }

    /// All entries of a paged list.
    pub fn pages(&self, path: &str, member: &str) -> Result<Vec<Value>, Failures> {
        let config = self.place.configure()?;
        let (mut entries, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}?limit=1000{cursor}");
            let mut page = door::call(&config, &Method::GET, &page, &Value::Null)?;
            if let Value::Array(more) = page[member].take() {
                entries.extend(more);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", door::encoded(next)),
                None => return Ok(entries),
            }
        }
    }

    /// Prints an answer as text for people or as JSON.
    pub fn print(&self, answer: &Value, for_people: fn(&Value) -> String) -> Result<(), Failures> {
        super::print(if self.json { format!("{answer:#}\n") } else { for_people(answer) })
    }
}

/// A value on one line; a dash for a missing one.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

/// The members of an object, one a line.
pub fn members(object: &Value) -> String {
    let members = object.as_object().into_iter().flatten();
    let lines = members.map(|(name, value)| format!("{name}: {}", cell(value)));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Objects as rows of a table, with the names of the columns above.
pub fn table(objects: &Value, columns: &[&str]) -> String {
    let mut rows = vec![columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    for object in objects.as_array().into_iter().flatten() {
        rows.push(columns.iter().map(|name| cell(&object[*name])).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|n| width(n).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
