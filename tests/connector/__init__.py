"""Tests of the GigaChat connector and its parts. A package, so that its conftest does not hide other folders'."""
