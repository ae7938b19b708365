FROM nonroot
ENTRYPOINT ["/bin/x", "-v"]
