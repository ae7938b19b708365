module github.com/planetscale/vtprotobuf

go 1.26
