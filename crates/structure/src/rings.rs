//! Rings: modules that import themselves through others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::{Graph, Module, name};

/// Finds the rings of a graph. Each is written as the shortest way from a module back to itself, such as
/// `a -> b -> a`. Modules that lie in one ring appear in no other.
pub fn rings(graph: &Graph) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for module in graph.keys() {
        if seen.contains(module) {
            continue;
        }
        if let Some(way) = way_back(graph, module) {
            found.push(way.iter().map(name).collect::<Vec<_>>().join(" -> "));
            seen.extend(way);
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn way_back(graph: &Graph, module: &Module) -> Option<Vec<Module>> {
    let mut came_from: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut next = VecDeque::from([module]);
    while let Some(at) = next.pop_front() {
        for to in graph.get(at).into_iter().flatten() {
            if to == module {
                let mut way = vec![module, at];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                if way[way.len() - 1] != module {
                    way.push(module);
                }
                return Some(way.into_iter().rev().cloned().collect());
            }
            if !came_from.contains_key(to) {
                came_from.insert(to, at);
                next.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(edges: &[(&str, &str)]) -> Vec<String> {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(vec![(*from).to_owned()]).or_default().insert(vec![(*to).to_owned()]);
        }
        rings(&graph)
    }

    #[test]
    fn the_shortest_way_round_is_told_and_what_only_leads_there_is_not() {
        assert_eq!(found(&[("a", "b"), ("b", "c"), ("a", "c")]), [""; 0]);
        assert_eq!(
            found(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("d", "c"), ("d", "e")]),
            ["b -> c -> d -> b"]
        );
        assert_eq!(found(&[("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]), ["a -> b -> a", "c -> d -> c"]);
    }
}
