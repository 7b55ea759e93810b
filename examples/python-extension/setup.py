from setuptools import Extension, setup

setup(
    name="editdistance",
    version="1.0",
    description="How many edits lie between two strings",
    packages=["editdistance"],
    package_dir={"": "src"},
    ext_modules=[Extension("editdistance._distance", ["src/editdistance/_distance.c"])],
)
