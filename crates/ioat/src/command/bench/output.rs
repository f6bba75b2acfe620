//! Where a benchmark's results go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use ioat::bench::PictureError;
use serde::Serialize;

use crate::{command::print_json, failure::Failure};

#[derive(Debug, Args)]
pub(super) struct Output {
    /// The folder that the picture is written to: bench-dma.svg or bench-receive.svg.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Print JSON, with the value of each round.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a, R> {
    #[serde(flatten)]
    results: &'a R,
    picture: &'a Path,
}

impl Output {
    /// Makes the folder, before hours of measuring.
    pub(super) fn make_folder(&self) -> Result<(), Failure> {
        let Self { out, .. } = self;
        fs::create_dir_all(out).map_err(|error| {
            Failure::Usage(format!("cannot make {} ({error}): change --out", out.display()))
        })
    }

    /// Writes the picture to the file `name`, and prints the results, as JSON or by `print`.
    pub(super) fn write<R: Serialize>(
        &self,
        results: &R,
        (name, svg): (&str, Result<String, PictureError>),
        print: impl FnOnce(&R),
    ) -> Result<(), Failure> {
        let picture = self.out.join(name);
        let svg = svg.map_err(|error| Failure::Failed(error.to_string()))?;
        fs::write(&picture, svg).map_err(|error| {
            Failure::Failed(format!("cannot write {} ({error}): change --out", picture.display()))
        })?;
        if self.json {
            print_json(&Document { results, picture: &picture });
        } else {
            print(results);
            println!("\nPicture: {}", picture.display());
        }
        Ok(())
    }
}
