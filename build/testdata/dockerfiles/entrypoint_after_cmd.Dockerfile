FROM nonroot
CMD ["a"]
ENTRYPOINT run $HOME
