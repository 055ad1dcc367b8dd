"""What takes the libraries that teachers come from: `make test-foreign`."""
