//! Bad input: damaged and hostile files, files of the wrong kind, and settings out of range.
//!
//! Each case is data: a name, an input, and what is right. An input is refused with a typed error whose message has
//! certain words (what is wrong, and where), or it is accepted with a documented fallback, which is checked. No case
//! may panic, take long, or take much memory. `docs/reliability.md` lists the classes.

#![allow(clippy::print_stdout, reason = "the test tells how many cases of each class hold")]

mod case;
mod config_json;
mod harness;
mod images;
mod lora_and_adapters;
mod memory;
mod models;
mod pairings;
mod pickle_writer;
mod pickles;
mod png_metadata;
mod png_writer;
mod prompts;
mod requests;
mod safetensors_headers;
mod session_folders;
mod shard_indexes;
mod tensor_file;
mod weights;

use harness::Class;
use memory::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// All classes, in the order of `docs/reliability.md`.
const CLASSES: [Class; 12] = [
    Class {
        name: "safetensors headers",
        count: safetensors_headers::COUNT,
        check_base: safetensors_headers::check_base,
        cases: safetensors_headers::cases,
    },
    Class {
        name: "shard indexes",
        count: shard_indexes::COUNT,
        check_base: shard_indexes::check_base,
        cases: shard_indexes::cases,
    },
    Class { name: "pickles", count: pickles::COUNT, check_base: pickles::check_base, cases: pickles::cases },
    Class { name: "wrong pairings", count: pairings::COUNT, check_base: pairings::check_base, cases: pairings::cases },
    Class { name: "weights", count: weights::COUNT, check_base: weights::check_base, cases: weights::cases },
    Class {
        name: "configurations",
        count: config_json::COUNT,
        check_base: config_json::check_base,
        cases: config_json::cases,
    },
    Class { name: "images", count: images::COUNT, check_base: images::check_base, cases: images::cases },
    Class { name: "prompts", count: prompts::COUNT, check_base: prompts::check_base, cases: prompts::cases },
    Class { name: "requests", count: requests::COUNT, check_base: requests::check_base, cases: requests::cases },
    Class {
        name: "session folders",
        count: session_folders::COUNT,
        check_base: session_folders::check_base,
        cases: session_folders::cases,
    },
    Class {
        name: "PNG metadata",
        count: png_metadata::COUNT,
        check_base: png_metadata::check_base,
        cases: png_metadata::cases,
    },
    Class {
        name: "LoRAs and adapters",
        count: lora_and_adapters::COUNT,
        check_base: lora_and_adapters::check_base,
        cases: lora_and_adapters::cases,
    },
];

/// Known faults: cases that do not hold yet, as `docs/reliability.md` lists them. One that is mended must be taken off
/// both lists.
const KNOWN: &[&str] = &[];

#[test]
fn every_bad_input_is_refused_by_name_or_falls_back_as_documented() {
    let (mut failures, mut total) = (Vec::new(), 0);
    for class in &CLASSES {
        let failed = class.run();
        println!("{}: {} of {}", class.name, class.count - failed.len(), class.count);
        total += class.count;
        failures.extend(failed);
    }
    println!("total: {} of {total}", total - failures.len());
    let is_known = |(name, _): &&(String, String)| KNOWN.contains(&name.as_str());
    let new: Vec<String> =
        failures.iter().filter(|one| !is_known(one)).map(|(name, why)| format!("{name}: {why}")).collect();
    assert!(new.is_empty(), "{} cases do not hold:\n{}", new.len(), new.join("\n"));
    let mended: Vec<&&str> = KNOWN.iter().filter(|known| failures.iter().all(|(name, _)| name != *known)).collect();
    assert!(mended.is_empty(), "known faults that hold now: {mended:?}; take them off the lists");
}

#[test]
fn the_page_on_reliability_lists_the_known_faults() {
    let page = include_str!("../../docs/reliability.md");
    let listed: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("- `")?.split_once('`').map(|it| it.0)).collect();
    assert_eq!(listed, KNOWN, "known faults in docs/reliability.md");
}

#[test]
fn the_page_on_reliability_has_the_number_of_cases_of_each_class() {
    let page = include_str!("../../docs/reliability.md");
    // Rows of the table: `| class | what is tried | number of cases | what is right |`.
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let count_of = |name: &str| {
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("a row of the class `{name}`"));
        row[2].parse::<usize>().unwrap_or_else(|_| panic!("a number in the row of `{name}`, got `{}`", row[2]))
    };
    for class in &CLASSES {
        assert_eq!(count_of(class.name), class.count, "cases of the class `{}` in docs/reliability.md", class.name);
    }
    assert_eq!(count_of("total"), CLASSES.iter().map(|class| class.count).sum::<usize>());
}
