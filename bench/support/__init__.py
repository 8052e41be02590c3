"""What benchmarks share besides their result; not benchmarks themselves."""
