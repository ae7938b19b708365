# check=skip=all
from alpine as Base
