use std::fmt;

/// Every mistake of a configuration. Displayed as one line each.
#[derive(Debug)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in the configuration:", if self.0.len() == 1 { "a mistake" } else { "mistakes" })?;
        for mistake in &self.0 {
            writeln!(f, "  - {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
