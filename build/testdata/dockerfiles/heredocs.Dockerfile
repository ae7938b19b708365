FROM alpine
RUN <<EOF
echo one
echo $TWO
EOF
RUN <<-'EOT' cat > /f
	text
EOT
RUN <<EOF
#!/usr/bin/env python3
print("hi")
EOF
ENV NAME=n
COPY <<EOF <<"RAW" /dir/
hello $NAME
EOF
raw $NAME
RAW
RUN cat <<A <<B
a
A
b
B
